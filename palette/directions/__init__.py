"""Refusal directions: moments, candidates, the interventions made from them, and the panel that scores."""

from palette.directions.candidates import CANDIDATES, Directions, candidates, separation
from palette.directions.interventions import (
    METHODS,
    Intervention,
    StrengthKernel,
    editing,
    intervening,
    orthogonalisation_adapter,
)
from palette.directions.moments import StreamingMoments
from palette.directions.panel import Panel, Savings

__all__ = [
    "CANDIDATES",
    "METHODS",
    "Directions",
    "Intervention",
    "Panel",
    "Savings",
    "StreamingMoments",
    "StrengthKernel",
    "candidates",
    "editing",
    "intervening",
    "orthogonalisation_adapter",
    "separation",
]
