"""Refusal directions: moments, candidates, and the interventions made from them."""

from palette.directions.candidates import CANDIDATES, Directions, candidates, separation
from palette.directions.interventions import (
    INTERVENTIONS,
    Intervention,
    StrengthKernel,
    editing,
    intervening,
    orthogonalisation_adapter,
)
from palette.directions.moments import StreamingMoments

__all__ = [
    "CANDIDATES",
    "INTERVENTIONS",
    "Directions",
    "Intervention",
    "StreamingMoments",
    "StrengthKernel",
    "candidates",
    "editing",
    "intervening",
    "orthogonalisation_adapter",
    "separation",
]
