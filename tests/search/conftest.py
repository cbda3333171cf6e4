from __future__ import annotations

import pytest

from palette.search.space import Categorical, Integer, Real, Scored
from palette.search.study import StudyPlan

SPACE = {
    "method": Categorical(("directional_ablation", "centred_ablation")),
    "site": Integer(1, 3),
    "position": Categorical((-2, -1)),
    "strength": Real(0.5, 2.5),
}
OBJECTIVES = {"target": "minimize", "kept": "maximize", "moved": "minimize"}


def score(params) -> Scored:
    """A cheap objective with a constraint."""
    target = (params["strength"] - 1.5) ** 2 + params["site"]
    kept = params["site"] - params["strength"]
    moved = params["strength"] / 5 + (params["method"] == "centred_ablation") * 0.1
    return Scored((target, kept, moved), {"moved": moved - 0.4}, {"rung": 1})


@pytest.fixture
def plan(tmp_path) -> StudyPlan:
    """A plan of 24 trials on a journal."""
    return StudyPlan(tmp_path / "study.journal", SPACE, OBJECTIVES, "a" * 64, 24, seed=3)
