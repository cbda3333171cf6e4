"""How the shipped judge is trained: on labelled replies and on synthetic ones."""
