"""What subjects reply: generated once and kept.

Replies are kept apart from every run: a run's folder is shared, and holds ids, hashes and verdicts only.
What is kept lies in the user's own cache folder, in files that no other user may read: for each reply
its token ids and a hash of all that decides it. The hash covers the prompt, whose words are not kept.
Nothing is lost but time if the folder is deleted, and ``keep_replies: false`` in a recipe leaves it be.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from palette.backbones import answered
from palette.backbones.continuous import Decoding
from palette.evaluation.subjects import Subject, Tokens
from palette.files import ELSEWHERE_CACHED, unwritable
from palette.fingerprints import fingerprint
from palette.processes import Advance, unheard

Ask = Callable[..., Iterator[dict[int, Tokens]]]
"""Asks one model for replies, as ``palette.backbones.answered`` does."""


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
