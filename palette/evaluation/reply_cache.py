"""Replies that are generated once and kept, so that they can be judged again and a cut run goes on.

They are kept apart from every run: a run's folder is shared, and holds ids, hashes and verdicts only.
What is kept lies in the user's own cache folder, in files that no other user may read: for each reply
its token ids and a hash of all that decides it. The hash covers the prompt, whose words are not kept.
Nothing is lost but time if the folder is deleted, and ``keep_replies: false`` in a recipe leaves it be.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.backbones import Backbone, answered
from palette.fingerprints import fingerprint
from palette.progress import Advance

FORMAT = "palette-replies/1"
GENERATES = ("torch", "transformers")
"""Libraries whose version may decide a reply."""


class Kept:
    """Replies in one file that only grows, a line each; a line that was cut short counts for nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[str, list[int]] = {}
        data = path.read_bytes() if path.is_file() else b""
        self._cut = bool(data) and not data.endswith(b"\n")
        for line in data.splitlines():
            if (pair := _read(line)) is not None:
                # The first one stands, so that a reply never changes under who has read it.
                self._held.setdefault(*pair)

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: str) -> list[int] | None:
        """The reply under a key."""
        return self._held.get(key)

    def add(self, replies: Mapping[str, list[int]]) -> None:
        """Appends replies that are new and waits until the disk has them."""
        fresh = {key: reply for key, reply in replies.items() if key not in self._held}
        if not fresh:
            return
        text = ("\n" if self._cut else "") + "".join(_line(key, reply) for key, reply in fresh.items())
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "ab") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
        self._cut = False
        self._held |= fresh


def _line(key: str, reply: list[int]) -> str:
    return json.dumps([key, reply, fingerprint([key, reply])[:16]], separators=(",", ":")) + "\n"


def _read(line: bytes) -> tuple[str, list[int]] | None:
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
class Responses:
    """Asks backbones, and does not ask twice where it may keep what they said."""

    folder: Path | None = None
    """Where replies are kept; without one they are not."""
    advance: Advance = lambda count, tokens=0: None
    tally: Tally = field(default_factory=Tally)

    def read(
        self,
        backbone: Backbone,
        adapter: Adapter | None,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
    ) -> list[list[int]]:
        """The greedy reply of a backbone with an adapter mounted to each prompt, up to its limit of tokens.

        Raises:
            AdapterError: if the adapter does not fit the backbone.
        """
        found: list[list[int]] = [[]] * len(prompts)
        identity = identify(backbone, adapter)
        # A backbone without identity has no replies that could be told from another's.
        kept = Kept(self.folder / f"{identity}.jsonl") if self.folder and backbone.fingerprint else None
        with mounted(backbone.model, adapter) if adapter else nullcontext():
            for limit in sorted(set(limits)):
                rows = [row for row, own in enumerate(limits) if own == limit]
                asked = [prompts[row] for row in rows]
                for line, reply in self._answers(backbone, asked, limit, (identity, kept)).items():
                    found[rows[line]] = reply
        return found

    def _answers(
        self,
        backbone: Backbone,
        prompts: Sequence[Sequence[int]],
        limit: int,
        keeping: tuple[str, Kept | None],
    ) -> dict[int, list[int]]:
        identity, kept = keeping
        keys: list[str] = []
        known: dict[int, list[int]] = {}
        if kept is not None:
            keys = [fingerprint([identity, list(prompt), limit]) for prompt in prompts]
            known = {row: reply for row, key in enumerate(keys) if (reply := kept.get(key)) is not None}
        found: dict[int, list[int]] = {}
        if len(known) == len(prompts):
            self._count(known, fresh=False, seconds=0.0)
            return known
        started = time.monotonic()
        for replies in answered(backbone, prompts, limit, known.get):
            found |= replies
            if kept is not None:
                kept.add({keys[row]: reply for row, reply in replies.items()})
            now = time.monotonic()
            fresh = not set(replies) <= set(known)
            self._count(replies, fresh=fresh, seconds=now - started if fresh else 0.0)
            started = now
        return found

    def _count(self, replies: Mapping[int, list[int]], *, fresh: bool, seconds: float) -> None:
        tokens = sum(map(len, replies.values()))
        if fresh:
            self.tally.generated += len(replies)
            self.tally.tokens += tokens
            self.tally.seconds += seconds
        else:
            self.tally.known += len(replies)
        self.advance(len(replies), tokens if fresh else 0)


def identify(backbone: Backbone, adapter: Adapter | None) -> str:
    """The fingerprint of all that decides a reply beside its prompt and its limit."""
    decides: dict[str, Any] = {
        "format": FORMAT,
        "backbone": backbone.fingerprint,
        "adapter": adapter.digest if adapter else None,
        "decoding": "greedy",
        "dtype": str(backbone.model.dtype),
        "device": backbone.model.device.type,
        "versions": {name: version(name) for name in GENERATES},
    }
    return fingerprint(decides)
