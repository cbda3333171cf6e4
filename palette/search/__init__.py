"""Studies: multi-objective search with Optuna, resumable, and the choice from the Pareto front."""

from palette.search.choice import RULE, Choice, choose, hypervolume, kendall_tau
from palette.search.space import (
    Categorical,
    Finished,
    Integer,
    Objectives,
    Params,
    Real,
    Scored,
    Space,
    latin_hypercube,
)
from palette.search.storage import shown
from palette.search.study import Sampler, StudyPlan, read_study, run_study
from palette.search.workers import workers

__all__ = [
    "RULE",
    "Categorical",
    "Choice",
    "Finished",
    "Integer",
    "Objectives",
    "Params",
    "Real",
    "Sampler",
    "Scored",
    "Space",
    "StudyPlan",
    "choose",
    "hypervolume",
    "kendall_tau",
    "latin_hypercube",
    "read_study",
    "run_study",
    "shown",
    "workers",
]
