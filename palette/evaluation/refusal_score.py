"""The refusal score: log-odds of refusing, in nats, from what the backbone's own refusals begin with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from palette.backbones import Backbone, reply_logits
from palette.shapes import Float, Tensor

RefusalPrefixes = tuple[tuple[int, ...], ...]
LONGEST, MOST = 4, 16
"""A prefix has at most LONGEST tokens, and at most MOST prefixes are kept, the most frequent."""
LIMIT = 30.0
"""Log-odds are clamped to ± this many nats, where float32 probabilities end."""


def refusal_prefixes(
    refusals: Sequence[Sequence[int]], compliances: Sequence[Sequence[int]]
) -> RefusalPrefixes:
    """The shortest beginnings of the refusals with which no compliant reply begins, most frequent first."""
    taken = {tuple(reply[:n]) for reply in compliances for n in range(1, LONGEST + 1)}
    found: Counter[tuple[int, ...]] = Counter()
    for reply in refusals:
        for n in range(1, LONGEST + 1):
            if len(reply) >= n and tuple(reply[:n]) not in taken:
                found[tuple(reply[:n])] += 1
                break
    ordered = sorted(found, key=lambda prefix: (-found[prefix], prefix))
    return tuple(ordered[:MOST])


def log_odds(log_probability: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Log p − log(1 − p), in nats, clamped."""
    log_probability = log_probability.clamp(max=-1e-12)
    rest = torch.log(-torch.expm1(log_probability))
    return (log_probability - rest).clamp(-LIMIT, LIMIT)


Path = tuple[int, ...]
"""Tokens that a reply is made to begin with."""


def paths(prefixes: RefusalPrefixes) -> tuple[Path, ...]:
    """The fewest beginnings of replies that show the probability of every prefix, teacher-forced.

    A prefix's last token is predicted, not said; and a beginning shows what its own beginnings
    would. RefusalPrefixes of one token need the prompt alone.
    """
    inner = {prefix[:-1] for prefix in prefixes} or {()}
    return tuple(sorted(p for p in inner if not any(q[: len(p)] == p for q in inner - {p})))


def prefix_scores(
    logits: Mapping[Path, Float[Tensor, "*row kept vocabulary"]], prefixes: RefusalPrefixes
) -> Float[Tensor, "*row"]:
    """The log-odds, in nats, that replies begin with one of the prefixes.

    ``logits`` holds, for each of the ``paths``, those of its tokens and of the one after it.
    """
    each = {path: rows[..., -len(path) - 1 :, :].double().log_softmax(-1) for path, rows in logits.items()}
    terms = []
    for prefix in prefixes:
        path = next(path for path in each if path[: len(prefix) - 1] == prefix[:-1])
        said = [each[path][..., place, token] for place, token in enumerate(prefix)]
        terms.append(torch.stack(said).sum(0))
    if not terms:
        return torch.full_like(next(iter(each.values()))[..., 0, 0], -LIMIT)
    return log_odds(torch.stack(terms).logsumexp(0))


def refusal_scores(
    backbone: Backbone, prompts: Sequence[Sequence[int]], prefixes: RefusalPrefixes
) -> Float[Tensor, "prompt"]:
    """The log-odds, in nats, that each prompt's reply begins with one of the refusal prefixes.

    No token is generated: one forward pass for each of the prefixes' ``paths``.
    """
    found = {}
    for path in paths(prefixes):
        # The token after the path is never read; any will do.
        rows = reply_logits(backbone, prompts, [[*path, 0]] * len(prompts))
        found[path] = torch.stack(rows)
    return prefix_scores(found, prefixes)


def mean_score(scores: Float[Tensor, "prompt"]) -> float:
    """The mean refusal score, in nats; NaN if a score is not finite."""
    return float(scores.mean()) if bool(torch.isfinite(scores).all()) else math.nan
