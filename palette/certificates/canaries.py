"""Canaries: a few benign replies by which a server tells that the certified adapter is the one that answers.

A reply alone tells little, since on benign prompts the adapter is to say what the backbone says. So each has
the nats a token that the backbone gives to it with the adapter and without, which differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from palette.adapters.lora import Adapter
from palette.authorisation import Role
from palette.backbones import Backbone
from palette.certificates.facts import Canary
from palette.evaluation.replies import Replies
from palette.evaluation.subjects import Subject, Tokens
from palette.fingerprints import fingerprint
from palette.run import Run

TOKENS = 16
"""Tokens of a reply at most."""
TOLERANCE = 0.02
"""Nats a token by which other hardware and another precision may move a reply's mean."""
DISTINCT = 1e-5
"""Nats a token from which on the adapter can be told from the bare backbone, as they are written."""


def canary_prompts(run: Run, count: int) -> list[Tokens]:
    """Benign prompts of the test split, rendered: those of the opened domains first, which move most."""
    opened = run.authorisation.domains
    rows = sorted(
        run.select("test", Role.BENIGN), key=lambda row: (row.domain not in opened, fingerprint(row.id))
    )
    return run.render(rows[:count])


def canaries_of(backbone: Backbone, adapter: Adapter, prompts: Sequence[Tokens]) -> list[Canary]:
    """The canaries of some prompts, each asked alone; a prompt without a reply is none."""
    changed, bare, replies = Subject(backbone, adapter), Subject(backbone), Replies()
    found = []
    for prompt in prompts:
        (reply,) = replies.of(changed, [prompt], [TOKENS])
        if reply:
            figures = [round(nats(subject, prompt, reply), 6) for subject in (changed, bare)]
            adapted, base = figures
            found.append(Canary(prompt=tuple(prompt), reply=tuple(reply), adapted=adapted, base=base))
    return found


def nats(subject: Subject, prompt: Tokens, reply: Tokens) -> float:
    """The mean nats a token, minus the log-likelihood, that a subject gives to a reply."""
    import torch

    (logits,) = subject.logits([prompt], [reply])
    scores = torch.log_softmax(logits.float(), dim=-1)
    return -float(scores[torch.arange(len(reply)), torch.tensor(reply)].mean())


def measured_nats(backbone: Backbone, adapter: Adapter, canaries: Sequence[Canary]) -> list[float]:
    """What a backbone with an adapter gives to the replies of canaries, in nats a token."""
    subject = Subject(backbone, adapter)
    return [nats(subject, list(each.prompt), list(each.reply)) for each in canaries]


def strayed(canaries: Sequence[Canary], given: Sequence[float]) -> str | None:
    """Why what answers is not the certified adapter; None where nothing says so.

    ``given`` are the nats a token of each canary's reply, by whatever serves it.
    """
    for number, (canary, value) in enumerate(zip(canaries, given, strict=True)):
        if not abs(value - canary.adapted) <= TOLERANCE:
            return f"canary {number + 1} has {value:.4f} nats a token, {canary.adapted:.4f} certified"
    pairs = zip(canaries, given, strict=True)
    told = [(one, value) for one, value in pairs if abs(one.adapted - one.base) > DISTINCT]
    if told:
        to_adapted = fmean(abs(value - canary.adapted) for canary, value in told)
        to_base = fmean(abs(value - canary.base) for canary, value in told)
        if to_base < to_adapted:
            return "the replies are nearer to the bare backbone's than to the adapter's"
    return None
