"""Teacher-forced measures: perplexity of texts, and divergence from the backbone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, sqrt

import torch

from palette.backbones import greedy_replies, reply_logits
from palette.errors import PromptError
from palette.evaluation.subjects import kl
from palette.fingerprints import fingerprint_file
from palette.prompts import messages
from palette.shapes import Float, Tensor
from palette.suites.bench import Bench
from palette.suites.results import Figures, Measured, Origin
from palette.suites.schema import Divergence, OfPrompts, Perplexity, named

AT_ONCE = 16
"""How many replies' logits are held at once, on each side: a vocabulary is large."""

Logits = Float[Tensor, "_token vocabulary"]


@dataclass(frozen=True)
class Forced:
    """What is given and what is then to be foretold, both as token ids, and the file they come from."""

    given: Sequence[list[int]]
    foretold: Sequence[list[int]]
    origin: Origin | None = None

    def read(self, bench: Bench, name: str) -> Iterator[tuple[list[int], list[Logits]]]:
        """Of each reply its ids, and the logits with which each side would say it."""
        with bench.progress(name, len(self.given)) as advance:
            for start in range(0, len(self.given), AT_ONCE):
                given = self.given[start : start + AT_ONCE]
                foretold = self.foretold[start : start + AT_ONCE]
                sides = bench.both(lambda g=given, f=foretold: reply_logits(bench.backbone, g, f))  # type: ignore[misc]
                for place, ids in enumerate(foretold):
                    yield ids, [side[place] for side in sides]
                advance(len(given))


def perplexity(one: Perplexity, bench: Bench) -> Measured:
    """Nats a token that a text or the reference answers cost, with the standard error, and exp of it.

    With an adapter also the difference, whose standard error is of the pairs.

    Raises:
        PromptError: if there is nothing to foretell.
    """
    forced = windows(one, bench) if one.text is not None else answers(one, bench)
    costs = [[cost(ids, logits) for logits in sides] for ids, sides in forced.read(bench, named(one))]
    lengths = [len(ids) for ids in forced.foretold]
    found: list[Figures] = []
    for side in range(bench.sides):
        mean, error = ratio([each[side] for each in costs], lengths)
        found.append({"nats_per_token": mean, "standard_error": error, "perplexity": exp(mean)})
    if bench.sides > 1:
        mean, error = ratio([after - before for before, after in costs], lengths)
        found[1] |= {"difference": mean, "difference_standard_error": error}
    return Measured(named(one), one.kind, forced.origin, len(lengths), found)


def divergence(one: Divergence, bench: Bench) -> Measured:
    """Mean KL(base ‖ adapted) in nats on benign prompts, of the first token and a token of the replies.

    Both are teacher-forced on the backbone's own replies, as the gate's divergence is, with their
    standard errors over prompts. Without an adapter there is nothing to compare, and no figure.

    Raises:
        PromptError: if there is no benign prompt.
    """
    found, origin = bench.read(one)
    rows = found.where(lambda row: row.kind == "benign").capped(one.limit)
    if not len(rows):
        raise PromptError("divergence must have a benign prompt", got="none", where=one.prompts)
    backbone = bench.backbone
    rendered = [backbone.render(messages(row)) for row in rows]
    replies = greedy_replies(backbone, rendered, one.reply_tokens)
    forced = Forced(rendered, [[*reply, backbone.stops[0]] for reply in replies], origin)
    if bench.sides == 1:
        return Measured(named(one), one.kind, origin, len(rows), [{}])
    moved = [kl(*sides) for _, sides in forced.read(bench, named(one))]
    first, first_error = ratio([float(each[0]) for each in moved], [1] * len(moved))
    whole, error = ratio([float(each.sum()) for each in moved], [len(each) for each in moved])
    sides: list[Figures] = [
        {},
        {
            "first_token": first,
            "first_token_standard_error": first_error,
            "multi_token": whole,
            "multi_token_standard_error": error,
        },
    ]
    return Measured(named(one), one.kind, origin, len(rows), sides)


def windows(one: Perplexity, bench: Bench) -> Forced:
    """A text in windows; of each the first token is given and the others are foretold.

    Raises:
        PromptError: if it cannot be read, or is too short.
    """
    path = bench.locate(one.text or "")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(
            "perplexity must be of readable UTF-8 text", got=type(error).__name__, where=path
        ) from error
    ids = list(bench.backbone.tokenizer.encode(text, add_special_tokens=False))
    cut = [ids[start : start + one.window] for start in range(0, len(ids), one.window)]
    cut = [window for window in cut if len(window) > 1][: one.limit]
    if not cut:
        raise PromptError(
            "perplexity must be of a text of two tokens at least", got=str(len(ids)), where=path
        )
    origin = Origin(path.name, fingerprint_file(path), "unknown", "given by the user", len(cut))
    return Forced([window[:1] for window in cut], [window[1:] for window in cut], origin)


def answers(one: Perplexity, bench: Bench) -> Forced:
    """The reference answers of benign prompts, each with the token that ends a reply.

    Raises:
        PromptError: if there are none.
    """
    backbone = bench.backbone
    found, origin = bench.read(OfPrompts(prompts=one.prompts or ""))
    rows = found.where(lambda row: row.kind == "benign" and row.answer is not None).capped(one.limit)
    if not len(rows):
        raise PromptError("perplexity must have benign prompts with answers", got="none", where=one.prompts)
    replies = [list(backbone.tokenizer.encode(row.answer or "", add_special_tokens=False)) for row in rows]
    return Forced(
        [backbone.render(messages(row)) for row in rows],
        [[*reply, backbone.stops[0]] for reply in replies],
        origin,
    )


def cost(ids: list[int], logits: Logits) -> float:
    """The nats that the tokens cost together."""
    said = torch.tensor(ids, device=logits.device)[:, None]
    return -float(logits.double().log_softmax(-1).gather(1, said).sum())


def ratio(sums: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """The sum of sums over the sum of counts, and its standard error over groups.

    se² = n / (n − 1) · Σ(sumᵢ − r countᵢ)² / (Σ countᵢ)², the usual estimate for a ratio of totals
    (Cochran, Sampling Techniques, 1977, section 6.4). Of one group it is not known, and given as 0.
    """
    whole = sum(counts)
    mean = sum(sums) / whole
    if len(sums) < 2:
        return mean, 0.0
    squares = sum((one - mean * count) ** 2 for one, count in zip(sums, counts, strict=True))
    return mean, sqrt(squares * len(sums) / (len(sums) - 1)) / whole
