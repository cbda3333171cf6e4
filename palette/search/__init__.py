"""Studies: multi-objective search with Optuna, resumable, and the choice from the Pareto front."""
