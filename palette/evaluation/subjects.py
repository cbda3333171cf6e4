"""What is asked in an evaluation, of whom, and what they reply: generated once and kept.

Replies are kept apart from every run: a run's folder is shared, and holds ids, hashes and verdicts only.
What is kept lies in the user's own cache folder, in files that no other user may read: for each reply
its token ids and a hash of all that decides it. The hash covers the prompt, whose words are not kept.
Nothing is lost but time if the folder is deleted, and ``keep_replies: false`` in a recipe leaves it be.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.authorisation import Role
from palette.backbones import Backbone, answered, reply_logits
from palette.backbones.generation import Decoding
from palette.backbones.placement import number_format
from palette.files import ELSEWHERE_CACHED, unwritable
from palette.fingerprints import fingerprint
from palette.processes import Advance, unheard
from palette.prompts import Prompt, PromptSet
from palette.run import Run
from palette.shapes import Float, Tensor

CACHE_FORMAT = "palette-replies/1"
GENERATES = ("torch", "transformers")
"""Libraries whose version may decide a reply."""

COMPARED = 1 << 26
"""Logits of each of two subjects that are held at once."""

Tokens = list[int]
Ask = Callable[..., Iterator[dict[int, Tokens]]]
"""Asks one model for replies, as ``palette.backbones.answered`` does."""
Logits = Float[Tensor, "_token vocabulary"]


@dataclass(frozen=True)
class Subject:
    """What is asked, and how: a backbone alone, or with an adapter."""

    backbone: Backbone
    adapter: Adapter | None = None
    seed: int | None = None
    """If given, the tokens of its replies are drawn at temperature 1; else each is the likeliest."""

    @property
    def mount(self) -> dict[str, Any]:
        """All that is mounted and decides a reply, as plain values."""
        return {"adapter": self.adapter.digest if self.adapter else None}

    @property
    def identity(self) -> str:
        """The fingerprint of all that decides a reply beside its prompt and its limit; none if unknown."""
        if not self.backbone.fingerprint:
            return ""
        model = self.backbone.model
        decides: dict[str, Any] = {
            "format": CACHE_FORMAT,
            "backbone": self.backbone.fingerprint,
            **self.mount,
            "decoding": "greedy" if self.seed is None else f"drawn by {self.seed}",
            "stops": self.backbone.stops,
            "dtype": number_format(model),
            "device": model.device.type,
            "versions": {name: version(name) for name in GENERATES},
        }
        return fingerprint(decides)

    def prompt(self, rendered: Sequence[int]) -> Tokens:
        """A rendered prompt as this subject reads it."""
        return list(rendered)

    @contextmanager
    def mounted(self) -> Iterator[Backbone]:
        """The backbone as this subject is, inside the block.

        Raises:
            AdapterError: if what is mounted does not fit the backbone.
        """
        if self.adapter is None:
            yield self.backbone
            return
        with mounted(self.backbone.model, self.adapter):
            yield self.backbone

    def logits(self, prompts: Sequence[Tokens], replies: Sequence[Tokens]) -> list[Logits]:
        """For each prompt the logits with which the subject would say each token of a reply."""
        with self.mounted() as model:
            return reply_logits(model, [self.prompt(each) for each in prompts], replies)


@dataclass(frozen=True)
class Requests:
    """The rows of an evaluation with their roles, rendered for a backbone."""

    rows: Sequence[Prompt]
    roles: Sequence[Role]
    prompts: Sequence[Tokens]

    @classmethod
    def of(cls, run: Run, rows: PromptSet | Sequence[Prompt]) -> Requests:
        """The rows as the run's backbone and authorisation take them."""
        return cls(list(rows), [run.authorisation.role(row) for row in rows], run.render(rows))

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    @property
    def questions(self) -> list[str]:
        """What each row asks, which a judge may read beside the reply."""
        return [row.request for row in self.rows]

    def limits(self, reply_tokens: int, floor_tokens: int) -> list[int]:
        """How many tokens each reply may have: to the floor few, so that no content is elicited."""
        return [floor_tokens if role is Role.FLOOR else reply_tokens for role in self.roles]

    def where(self, places: Sequence[int]) -> Requests:
        """Some of the rows."""
        rows, roles, prompts = self.rows, self.roles, self.prompts
        return Requests(
            *([rows[i] for i in places], [roles[i] for i in places], [prompts[i] for i in places])
        )

    def benign(self, most: int) -> list[int]:
        """The places of at most so many benign rows a domain, kind and tier.

        Raises:
            PromptError: if there is none.
        """
        pairs = zip(self.rows, self.roles, strict=True)
        benign = PromptSet(tuple(row for row, role in pairs if role is Role.BENIGN))
        chosen = {row.id for row in benign.required("benign").capped(most)}
        return [i for i, row in enumerate(self.rows) if row.id in chosen]


def kl(base: Float[Tensor, "*token vocabulary"], changed: Float[Tensor, "*token vocabulary"]) -> Tensor:
    """KL(base ‖ changed) at each token, in nats."""
    p, q = base.double().log_softmax(-1), changed.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def divergence(base: Iterable[Logits], changed: Iterable[Logits]) -> dict[str, float]:
    """Mean KL(base ‖ changed) in nats: of the first token, and over all tokens of the replies.

    Both are teacher-forced on the backbone's own replies, so the second is a true multi-token KL a
    token, not a comparison of different texts.
    """
    each = [kl(b, c) for b, c in zip(base, changed, strict=True)]
    first = torch.stack([row[0] for row in each if len(row)])
    return {"first_token": float(first.mean()), "multi_token": float(torch.cat(each).mean())}


def diverged(
    base: Subject, changed: Subject, prompts: Sequence[Tokens], replies: Sequence[Tokens]
) -> dict[str, float]:
    """The divergence of two subjects in nats, on what the first replies to some prompts and their end."""
    whole = [[*reply, base.backbone.stops[0]] for reply in replies]
    # Some at a time: what a hundred replies' tokens take over a large vocabulary is gigabytes.
    words = base.backbone.vocabulary
    size = max(1, COMPARED // (words * max(map(len, whole), default=1)))
    parts = [slice(start, start + size) for start in range(0, len(whole), size)]

    def each(subject: Subject) -> Iterator[Logits]:
        for part in parts:
            yield from subject.logits(prompts[part], whole[part])

    return divergence(each(base), each(changed))


class ReplyFile:
    """Replies in one file that only grows, a line each; a line that was cut short counts for nothing.

    Without a file nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._replies: dict[str, Tokens] = {}
        data = path.read_bytes() if path and path.is_file() else b""
        self._cut = bool(data) and not data.endswith(b"\n")
        for line in data.splitlines():
            if (pair := _read(line)) is not None:
                # The first one stands, so that a reply never changes under who has read it.
                self._replies.setdefault(*pair)

    def __len__(self) -> int:
        """How many replies there are."""
        return len(self._replies)

    def get(self, key: str) -> Tokens | None:
        """The reply under a key."""
        return self._replies.get(key)

    def add(self, replies: Mapping[str, Tokens]) -> None:
        """Appends replies that are new and waits until the disk has them.

        Raises:
            OutputError: if the disk cannot take them.
        """
        fresh = {key: reply for key, reply in replies.items() if key not in self._replies}
        if not fresh or self._path is None:
            return
        lines = ([key, reply, fingerprint([key, reply])[:16]] for key, reply in fresh.items())
        text = "\n" * self._cut + "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(handle, "ab") as stream:
                stream.write(text.encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise unwritable(self._path, error, ELSEWHERE_CACHED) from error
        self._cut = False
        self._replies |= fresh


def _read(line: bytes) -> tuple[str, Tokens] | None:
    try:
        key, reply, check = json.loads(line)
        return (key, reply) if fingerprint([key, reply])[:16] == check else None
    except (ValueError, TypeError, RecursionError):
        return None


@dataclass
class Tally:
    """How many replies were generated and how many were known, and how fast they came."""

    generated: int = 0
    known: int = 0
    tokens: int = 0
    """Tokens of the generated replies."""
    seconds: float = 0.0

    def to_json(self) -> dict[str, float | int]:
        """The figures, with tokens a second where any were generated."""
        rate = self.tokens / self.seconds if self.seconds and self.tokens else 0.0
        return {
            "generated": self.generated,
            "known": self.known,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(rate, 1),
        }


@dataclass
class Replies:
    """Asks subjects, and does not ask twice where it may keep what they replied."""

    folder: Path | None = None
    """Where replies are kept; without one they are not."""
    advance: Advance = unheard
    tally: Tally = field(default_factory=Tally)

    def of(self, subject: Subject, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> list[Tokens]:
        """The subject's reply to each rendered prompt, up to its limit of tokens.

        Greedy, unless the subject has a seed: then it depends on the prompts beside it, too.

        Raises:
            AdapterError: if what is mounted does not fit the backbone.
        """
        replies: list[Tokens] = [[]] * len(prompts)
        identity = subject.identity
        # A backbone without identity has no replies that could be told from another's.
        kept = ReplyFile(self.folder / f"{identity}.jsonl" if self.folder and identity else None)
        asked = [subject.prompt(prompt) for prompt in prompts]
        with subject.mounted() as model:
            for limit in sorted(set(limits)):
                rows = [row for row, most in enumerate(limits) if most == limit]
                chosen = [asked[row] for row in rows]
                beside = [] if subject.seed is None else [fingerprint(chosen)]
                keys = [fingerprint([identity, prompt, limit, *beside]) for prompt in chosen]
                ask: Ask = partial(answered, model)
                if subject.seed is not None:
                    ask = partial(ask, decoding=Decoding(seed=subject.seed))
                for line, reply in self._generated(ask, chosen, limit, kept, keys).items():
                    replies[rows[line]] = reply
        return replies

    def _generated(
        self, ask: Ask, prompts: Sequence[Tokens], limit: int, kept: ReplyFile, keys: Sequence[str]
    ) -> dict[int, Tokens]:
        known = {row: reply for row, key in enumerate(keys) if (reply := kept.get(key)) is not None}
        replies: dict[int, Tokens] = {}
        started = time.monotonic()
        batches = [known] if len(known) == len(prompts) else ask(prompts, limit, known.get)
        for batch in batches:
            replies |= batch
            kept.add({keys[row]: reply for row, reply in batch.items()})
            now, tokens = time.monotonic(), 0
            if set(batch) <= set(known):
                self.tally.known += len(batch)
            else:
                tokens = sum(map(len, batch.values()))
                self.tally.generated += len(batch)
                self.tally.tokens += tokens
                self.tally.seconds += now - started
            self.advance(len(batch), tokens)
            started = now
        return replies
