"""Refusal directions: difference in means, and the interventions made from them."""

from palette.directions.interventions import METHODS, Intervention, StrengthKernel, intervening
from palette.directions.means import Directions, StreamingMeans

__all__ = [
    "METHODS",
    "Directions",
    "Intervention",
    "StreamingMeans",
    "StrengthKernel",
    "intervening",
]
