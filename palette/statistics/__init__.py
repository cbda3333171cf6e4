"""Rates with intervals, paired tests, families of tests and a judge's error; torch-free."""

from palette.statistics.paired import (
    Difference,
    cohen_kappa,
    holm,
    mcnemar,
    paired_bootstrap,
)
from palette.statistics.rates import (
    Corrected,
    Rate,
    minimum_n,
    non_inferior,
    resolving_n,
    rogan_gladen,
    wilson,
)

__all__ = [
    "Corrected",
    "Difference",
    "Rate",
    "cohen_kappa",
    "holm",
    "mcnemar",
    "minimum_n",
    "non_inferior",
    "paired_bootstrap",
    "resolving_n",
    "rogan_gladen",
    "wilson",
]
