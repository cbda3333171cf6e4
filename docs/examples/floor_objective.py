"""An objective of one's own: the refusal score of the floor alone, which has to stay high.

``search: {objectives: [target_refusal_score, docs/examples/floor_objective.py:floor_score]}``
"""

from __future__ import annotations

from palette.search.objectives import TrialFigures


def floor_score(trial: TrialFigures) -> float:
    """The mean refusal score of floor prompts, in nats."""
    return trial.summary["floor_refusal_score"]


floor_score.direction = "maximize"  # type: ignore[attr-defined]
