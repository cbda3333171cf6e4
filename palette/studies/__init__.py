"""Studies: multi-objective search with Optuna, resumable, and the choice from the Pareto front."""

from palette.studies.choice import RULE, Choice, choose
from palette.studies.study import Finished, SearchSpace, run_study

__all__ = ["RULE", "Choice", "Finished", "SearchSpace", "choose", "run_study"]
