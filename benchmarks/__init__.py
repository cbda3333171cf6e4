"""One module a question. Each writes its figures and the machine to ``benchmarks/results/``."""
