"""The refusal score: log-odds of refusing, in nats, from what the backbone's own refusals begin with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch

from palette.backbones import Backbone, next_token_logits, reply_logits
from palette.shapes import Float, Tensor

Openings = tuple[tuple[int, ...], ...]
LONGEST, MOST = 4, 16
"""An opening has at most LONGEST tokens, and at most MOST openings are kept, the most frequent."""
LIMIT = 30.0
"""Log-odds are clamped to ± this many nats, where float32 probabilities end."""


def refusal_openings(refusals: Sequence[Sequence[int]], compliances: Sequence[Sequence[int]]) -> Openings:
    """The shortest beginnings of the refusals with which no compliant reply begins, most frequent first."""
    taken = {tuple(reply[:n]) for reply in compliances for n in range(1, LONGEST + 1)}
    found: Counter[tuple[int, ...]] = Counter()
    for reply in refusals:
        for n in range(1, LONGEST + 1):
            if len(reply) >= n and tuple(reply[:n]) not in taken:
                found[tuple(reply[:n])] += 1
                break
    ordered = sorted(found, key=lambda opening: (-found[opening], opening))
    return tuple(ordered[:MOST])


def log_odds(log_probability: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Log p − log(1 − p), in nats, clamped."""
    log_probability = log_probability.clamp(max=-1e-12)
    rest = torch.log(-torch.expm1(log_probability))
    return (log_probability - rest).clamp(-LIMIT, LIMIT)


def refusal_scores(
    backbone: Backbone, prompts: Sequence[Sequence[int]], openings: Openings
) -> Float[Tensor, "prompt"]:
    """The log-odds, in nats, that each prompt's reply begins with one of the refusal openings.

    No token is generated. Openings of one token cost one forward pass for all prompts; longer ones
    are teacher-forced.
    """
    if not openings:
        return torch.full((len(prompts),), -LIMIT)
    single = sorted(opening[0] for opening in openings if len(opening) == 1)
    longer = [opening for opening in openings if len(opening) > 1]
    log_probabilities = next_token_logits(backbone, prompts).double().log_softmax(-1)
    terms = [log_probabilities[:, single]] if single else []
    for opening in longer:
        logits = reply_logits(backbone, prompts, [opening] * len(prompts))
        said = torch.tensor(opening).unsqueeze(-1)
        terms.append(
            torch.stack(
                [row.double().log_softmax(-1).cpu().gather(-1, said).sum() for row in logits]
            ).unsqueeze(-1)
        )
    return log_odds(torch.cat(terms, dim=-1).logsumexp(-1))


def mean_score(scores: Float[Tensor, "prompt"]) -> float:
    """The mean refusal score, in nats; NaN if a score is not finite."""
    return float(scores.mean()) if bool(torch.isfinite(scores).all()) else math.nan
