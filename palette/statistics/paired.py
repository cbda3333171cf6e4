"""The same prompts twice: before and after (McNemar's test, the bootstrap), or two raters (kappa)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import binomtest

from palette.statistics.rates import CONFIDENCE, wilson

RESAMPLES = 10_000
RESAMPLES_AT_ONCE = 1_000


@dataclass(frozen=True)
class Difference:
    """The mean of after − before in [-1, 1] over the same prompts, with its interval."""

    difference: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        """The four numbers, in order."""
        return asdict(self)


def paired_bootstrap(
    before: Sequence[float], after: Sequence[float], seed: int, resamples: int = RESAMPLES
) -> Difference:
    """The mean of after − before, in points of share, with its percentile bootstrap interval.

    Prompts are drawn with replacement, each with both of its values (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapters 8 and 13). What is drawn depends on the values and
    not on their order. Where all differences are equal, every resample is the sample and would give
    an interval without width; the Wilson bound w on the share of prompts that would differ then
    gives (1 − w) d ± w. Where only one or two prompts changed the interval is too narrow (it holds the
    truth in 86 % of samples at worst, of 25 prompts), so McNemar's exact test stands beside it. Of no
    prompt nothing is known: −1 to 1.

    Raises:
        ValueError: unless both have the same length, all values are in [0, 1], and there are at
            least 10,000 resamples.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"pairs must be two values each, got {first.shape} and {second.shape}")
    if not all(np.all((side >= 0) & (side <= 1)) for side in (first, second)):
        raise ValueError("every value of a pair must be in [0, 1]")
    if resamples < RESAMPLES:
        raise ValueError(f"a bootstrap needs at least {RESAMPLES} resamples, got {resamples}")
    values, counts = np.unique(second - first, return_counts=True)
    n = len(first)
    if n == 0:
        return Difference(0.0, -1.0, 1.0, 0)
    mean = float(values @ counts) / n
    if len(values) == 1:
        width = wilson(0, n).high
        centre = (1 - width) * mean
        return Difference(mean, max(-1.0, centre - width), min(1.0, centre + width), n)
    drawn = np.random.default_rng(seed)
    parts = [min(RESAMPLES_AT_ONCE, resamples - start) for start in range(0, resamples, RESAMPLES_AT_ONCE)]
    means = np.concatenate([drawn.multinomial(n, counts / n, size=part) @ values for part in parts]) / n
    tail = (1 - CONFIDENCE) / 2
    low = float(np.quantile(means, tail, method="lower"))
    high = float(np.quantile(means, 1 - tail, method="higher"))
    return Difference(mean, max(-1.0, min(low, mean)), min(1.0, max(high, mean)), n)


def mcnemar(lost: int, gained: int) -> float:
    """The two-sided p value of McNemar's exact test on discordant pairs (Psychometrika 12, 1947).

    Raises:
        ValueError: if a count is negative.
    """
    if min(lost, gained) < 0:
        raise ValueError(f"discordant pairs must be counts, got {lost} and {gained}")
    if lost + gained == 0:
        return 1.0
    return float(binomtest(lost, lost + gained, 0.5).pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """The p values adjusted by Holm's step-down procedure, by name (Scand. J. Stat. 6, 1979, p. 65).

    Those at most α are the hypotheses rejected, with a chance of at most α that any of them is true.
    The i-th smallest of m becomes the largest of (m − j + 1) p₍ⱼ₎ over j ≤ i, at most 1.

    Raises:
        ValueError: if a value is no probability.
    """
    if wrong := [name for name, p in p_values.items() if not 0 <= p <= 1]:
        raise ValueError(f"a p value must be in [0, 1], got {p_values[wrong[0]]} for {wrong[0]}")
    if not p_values:
        return {}
    # Inside, so that only who asks waits for pandas.
    from statsmodels.stats.multitest import multipletests

    adjusted = multipletests(list(p_values.values()), method="holm")[1]
    return {name: float(p) for name, p in zip(p_values, adjusted, strict=True)}


@dataclass(frozen=True)
class Kappa:
    """Agreement beyond chance, at most 1 and 0 at chance, with its interval."""

    kappa: float
    low: float
    high: float
    n: int

    def __float__(self) -> float:
        """The estimate."""
        return self.kappa

    def to_json(self) -> dict[str, float | int]:
        """The four numbers, in order."""
        return asdict(self)


def cohen_kappa(table: Sequence[Sequence[int]]) -> Kappa:
    """Cohen's kappa of a square table of counts, with its interval (Educ. Psychol. Meas. 20, 1960).

    κ = (pₒ − pₑ) / (1 − pₑ) with the large-sample variance of Fleiss, Cohen and Everitt (Psychol.
    Bull. 72, 1969). That variance is 0 where the raters never differ; the low end is then κ at the
    largest share of disagreement that so many agreements allow (Wilson).

    Raises:
        ValueError: unless the table is square and of counts, and each rater uses two categories.
    """
    size = len(table)
    counts = [count for row in table for count in row]
    if size < 2 or any(len(row) != size for row in table) or min(counts) < 0:
        raise ValueError("agreement needs a square table of counts, at least 2 by 2")
    rows, columns = ([sum(line) for line in lines] for lines in (table, zip(*table, strict=True)))
    n = sum(counts)
    if any(sum(total > 0 for total in totals) < 2 for totals in (rows, columns)):
        raise ValueError("agreement beyond chance needs two raters who each use two categories")
    from statsmodels.stats.inter_rater import cohens_kappa

    used = [i for i in range(size) if rows[i] or columns[i]]
    result = cohens_kappa([[table[i][j] for j in used] for i in used], return_results=True)
    kappa, low, high = (float(value) for value in (result.kappa, result.kappa_low, result.kappa_upp))
    if n == sum(table[i][i] for i in range(size)):
        chance = sum(row * column for row, column in zip(rows, columns, strict=True)) / n**2
        low, high = 1 - wilson(0, n).high / (1 - chance), 1.0
    return Kappa(kappa, max(-1.0, low), min(1.0, high), n)
