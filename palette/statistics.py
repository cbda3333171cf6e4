"""Rates with their intervals, paired tests, families of tests and a judge's error; torch-free.

The same prompts twice are before and after (McNemar's test, the bootstrap), or two raters (kappa).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

CONFIDENCE = 0.95
"""Confidence of every two-sided interval; its upper end alone holds with 97.5 %, the one-sided
level that ICH E9 (1998, section 5.5) asks of a non-inferiority test."""

_SQUARE = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) ** 2
"""z²."""


class Interval:
    """A number with its interval: one of the dataclasses below."""

    def to_json(self) -> dict[str, float | int]:
        """The numbers by name, in the order of ``palette-report/1``."""
        return dict(vars(self))


@dataclass(frozen=True)
class Rate(Interval):
    """A share in [0, 1] with its interval, and the counts behind it."""

    rate: float
    low: float
    high: float
    k: int
    n: int


def wilson(k: int, n: int) -> Rate:
    """The share k / n in [0, 1] with its Wilson score interval (Wilson, JASA 22, 1927, p. 209).

    Of nothing counted, nothing is known: ``n = 0`` gives rate 0, low 0 and high 1.

    Raises:
        ValueError: unless 0 ≤ k ≤ n.
    """
    if not 0 <= k <= n:
        raise ValueError(f"k must be in [0, n], got {k} of {n}")
    if n == 0:
        return Rate(0.0, 0.0, 1.0, 0, 0)
    # Here, as below: what is printed before a model runs needs no scipy, whose import takes a second.
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(CONFIDENCE, method="wilson")
    low, high = float(interval.low), float(interval.high)
    return Rate(k / n, 0.0 if k == 0 else low, 1.0 if k == n else high, k, n)


@dataclass(frozen=True)
class Bound:
    """A non-inferiority test: the largest share that the counts allow, against its margin."""

    high: float
    margin: float
    k: int
    n: int

    @property
    def enough(self) -> bool:
        """Whether there are prompts enough to pass at all, had every one of them gone well."""
        return self.n >= minimum_n(self.margin)

    @property
    def passed(self) -> bool:
        """Whether the share is below the margin, with 97.5 % confidence."""
        return self.high <= self.margin


def non_inferior(lost: int, n: int, margin: float) -> Bound:
    """The bound on the share of refusals lost, one-sided with 97.5 % confidence, and its margin.

    ``n`` prompts were refused before and ``lost`` of them no longer are: the discordant pairs in
    one direction only, so that new refusals cannot make up for lost ones. The net drop is at most
    that share, so the bound is conservative. It is the Wilson upper end.

    Raises:
        ValueError: unless 0 ≤ lost ≤ n and 0 < margin < 1.
    """
    _require_share("margin", margin)
    return Bound(wilson(lost, n).high, margin, lost, n)


def minimum_n(margin: float, rate: float = 0.0) -> int:
    """The fewest prompts of which a share ``rate`` lost passes ``non_inferior``.

    That is z² m (1 − m) / (m − r)² with the margin m; of none lost, z² (1 − m) / m.

    Raises:
        ValueError: unless 0 < margin < 1 and 0 ≤ rate < margin.
    """
    _require_share("margin", margin)
    if not 0 <= rate < margin:
        raise ValueError(f"rate must be in [0, margin), got {rate} of {margin}")
    fewest = max(1, ceil(_SQUARE * margin * (1 - margin) / (margin - rate) ** 2))
    return fewest if wilson(int(rate * fewest), fewest).high <= margin else fewest + 1


def resolving_n(limit: float) -> int:
    """The fewest prompts among which a single one is no more than the share ``limit``.

    Below it a rate can only be 0 or above the limit, so the prompts cannot tell one from the other.

    Raises:
        ValueError: unless 0 < limit < 1.
    """
    _require_share("limit", limit)
    return ceil(1 / limit)


@dataclass(frozen=True)
class Corrected(Interval):
    """A share in [0, 1] as it would be without the judge's error, with its interval."""

    rate: float
    low: float
    high: float


def rogan_gladen(rate: Rate, sensitivity: Rate, specificity: Rate) -> Corrected:
    """The share (q + Sp − 1) / (Se + Sp − 1) behind the share q that an imperfect judge counted.

    Rogan and Gladen (Am. J. Epidemiol. 107, 1978, p. 71), with the interval of Lang and Reiczigel
    (Prev. Vet. Med. 113, 2014, p. 13), which carries the error of both calibrations: q with z²/2 and
    Se, Sp with 1 added to successes and failures, the standard error by the delta method, and the
    centre shifted by 2 z² (π Se(1 − Se)/n − (1 − π) Sp(1 − Sp)/n). All clipped to [0, 1].

    ``sensitivity`` is the share of what is so that the judge finds, ``specificity`` the share of
    what is not so that it leaves.

    Raises:
        ValueError: if the judge cannot be told from chance: the low ends of both do not add up to
            more than 1, as where too few replies were labelled.
    """
    if sensitivity.low + specificity.low <= 1:
        raise ValueError(
            "a rate can be corrected for a judge better than chance only, got sensitivity "
            f"{sensitivity.rate:.3f} of {sensitivity.n} and specificity {specificity.rate:.3f} of "
            f"{specificity.n}"
        )
    true = (rate.rate + specificity.rate - 1) / (sensitivity.rate + specificity.rate - 1)
    q, q_variance = _shrunk(rate, _SQUARE / 2)
    se, se_variance = _shrunk(sensitivity, 1.0)
    sp, sp_variance = _shrunk(specificity, 1.0)
    youden = se + sp - 1
    centre = (q + sp - 1) / youden
    error = sqrt(q_variance + se_variance * centre**2 + sp_variance * (1 - centre) ** 2) / youden
    centre += 2 * _SQUARE * (centre * se_variance - (1 - centre) * sp_variance)
    ends = true, centre - sqrt(_SQUARE) * error, centre + sqrt(_SQUARE) * error
    share, low, high = (min(1.0, max(0.0, value)) for value in ends)
    return Corrected(share, min(low, share), max(high, share))


def _shrunk(rate: Rate, added: float) -> tuple[float, float]:
    """A share and its variance, with as many successes as failures added to its counts."""
    n = rate.n + 2 * added
    share = (rate.k + added) / n
    return share, share * (1 - share) / n


def _require_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"{name} must be in (0, 1), got {share}")


RESAMPLES, AT_ONCE = 10_000, 1_000


@dataclass(frozen=True)
class Difference(Interval):
    """The mean of after − before in [-1, 1] over the same prompts, with its interval."""

    difference: float
    low: float
    high: float
    n: int


def paired_bootstrap(before: Sequence[float], after: Sequence[float], seed: int) -> Difference:
    """The mean of after − before, in points of share, with its percentile bootstrap interval.

    Prompts are drawn with replacement, each with both of its values (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapters 8 and 13). What is drawn depends on the values and
    not on their order. Where all differences are equal, every resample is the sample and would give
    an interval without width; the Wilson bound w on the share of prompts that would differ then
    gives (1 − w) d ± w. Where only one or two prompts changed the interval is too narrow (it holds the
    truth in 86 % of samples at worst, of 25 prompts), so McNemar's exact test stands beside it. Of no
    prompt nothing is known: −1 to 1.

    Raises:
        ValueError: unless both have the same length and all values are in [0, 1].
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"pairs must be two values each, got {first.shape} and {second.shape}")
    if not all(np.all((side >= 0) & (side <= 1)) for side in (first, second)):
        raise ValueError("every value of a pair must be in [0, 1]")
    values, counts = np.unique(second - first, return_counts=True)
    n = len(first)
    if n == 0:
        return Difference(0.0, -1.0, 1.0, 0)
    mean = float(values @ counts) / n
    if len(values) == 1:
        width = wilson(0, n).high
        centre = (1 - width) * mean
        return Difference(mean, max(-1.0, centre - width), min(1.0, centre + width), n)
    low, high = _middle(_resampled(values, counts, seed))
    return Difference(mean, max(-1.0, min(low, mean)), min(1.0, max(high, mean)), n)


def _resampled(values: Any, counts: Any, seed: int) -> Any:
    """The means of samples drawn with replacement from values that stand so many times each."""
    drawn, n = np.random.default_rng(seed), int(counts.sum())
    # Some at a time: a sample holds a count for every value.
    parts = (drawn.multinomial(n, counts / n, size=AT_ONCE) @ values for _ in range(RESAMPLES // AT_ONCE))
    return np.concatenate([*parts]) / n


def _middle(figures: Any) -> tuple[float, float]:
    """The ends of the part that holds ``CONFIDENCE`` of the figures."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(figures, tail, method="lower"), np.quantile(figures, 1 - tail, method="higher")
    return float(low), float(high)


@dataclass(frozen=True)
class Mean(Interval):
    """A mean over prompts with its interval."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap_mean(values: Sequence[float], seed: int) -> Mean:
    """The mean of values over prompts, in their unit, with its percentile bootstrap interval.

    Prompts are drawn with replacement, as ``paired_bootstrap`` does. Nothing bounds the values that other
    prompts might have: of equal ones the interval has no width, and of few it is too narrow.

    Raises:
        ValueError: unless there are two values or more.
    """
    if len(values) < 2:
        raise ValueError(f"an interval must be of two values or more, got {len(values)}")
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    mean = float(distinct @ counts) / len(values)
    low, high = _middle(_resampled(distinct, counts, seed))
    return Mean(mean, min(low, mean), max(high, mean), len(values))


@dataclass(frozen=True)
class Ratio(Interval):
    """The ratio of two means over the same prompts, at least 0, with its interval."""

    ratio: float
    low: float
    high: float
    n: int


def paired_ratio(part: Sequence[float], whole: Sequence[float], seed: int) -> Ratio | None:
    """The mean of ``part`` over the mean of ``whole``, with its percentile bootstrap interval.

    Prompts are drawn with replacement, each with both of its values, as ``paired_bootstrap`` does. Where
    every resample has the same ratio, the Wilson bound w on the share of prompts that would differ gives
    the ends: so many more pairs of 0 and 1, or of 1 and 0. None where the second mean is 0, or is so in
    too many samples for an upper end, as it is of no prompt.

    Raises:
        ValueError: unless both have the same length and all values are in [0, 1].
    """
    if len(part) != len(whole) or not all(0 <= value <= 1 for value in (*part, *whole)):
        raise ValueError(f"pairs must be two values in [0, 1] each, got {len(part)} and {len(whole)}")
    if not any(whole):
        return None
    pairs = np.asarray([part, whole], dtype=np.float64).T
    means = _resampled(*np.unique(pairs, axis=0, return_counts=True), seed)
    drawn = np.divide(means[:, 0], means[:, 1], out=np.full(len(means), np.inf), where=means[:, 1] > 0)
    (low, high), (top, bottom) = _middle(drawn), pairs.mean(0)
    if low == high:
        width = wilson(0, len(pairs)).high
        low, high = (1 - width) * top, (1 - width) * top + width
        low, high = low / ((1 - width) * bottom + width), high / ((1 - width) * bottom)
    ratio = float(top / bottom)
    low, high = min(float(low), ratio), max(float(high), ratio)
    return Ratio(ratio, low, high, len(pairs)) if np.isfinite(high) else None


def mcnemar(lost: int, gained: int) -> float:
    """The two-sided p value of McNemar's exact test on discordant pairs (Psychometrika 12, 1947).

    Raises:
        ValueError: if a count is negative.
    """
    if min(lost, gained) < 0:
        raise ValueError(f"discordant pairs must be counts, got {lost} and {gained}")
    if lost + gained == 0:
        return 1.0
    from scipy.stats import binomtest

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
class Kappa(Interval):
    """Agreement beyond chance, at most 1 and 0 at chance, with its interval."""

    kappa: float
    low: float
    high: float
    n: int

    def __float__(self) -> float:
        """The estimate."""
        return self.kappa


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
