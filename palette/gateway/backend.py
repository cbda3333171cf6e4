"""What answers: the protocol of backends, the certificates that they serve, and what they give."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from palette.authorisation import Certified
from palette.gateway.asking import Asked
from palette.gateway.refusals import Refused
from palette.settings import Thinking

if TYPE_CHECKING:
    from palette.adapters.lora import Adapter


@dataclass(frozen=True)
class Canary:
    """The token ids of a benign prompt, and of the reply that the certified adapter gave to it."""

    prompt: tuple[int, ...]
    reply: tuple[int, ...]


@dataclass(frozen=True)
class Served:
    """A certificate that holds, as far as a backend needs it: its facts, and its adapter's verified bytes.

    ``adapter`` makes the adapter of these bytes, ``write`` writes them into a folder of another server's.
    ``system`` and ``thinking`` are the backbone's, as they were when the certificate was measured.
    """

    facts: Certified
    adapter: Callable[[], Adapter] = field(repr=False)
    write: Callable[[Path], None] = field(repr=False)
    canaries: tuple[Canary, ...] = field(default=(), repr=False)
    system: str = ""
    thinking: Thinking = "closed"


@dataclass(frozen=True)
class Piece:
    """What is new of one of the replies to a request.

    ``tokens`` is how many tokens of the reply there are so far, ``prompt`` how many were read, ``finish`` why
    it ends here: ``stop`` or ``length``.
    """

    index: int
    text: str
    tokens: int
    prompt: int
    finish: str | None = None


class Backend(Protocol):
    """Answers with exactly one certified adapter a request, or not at all."""

    @property
    def backbone(self) -> str:
        """The digest of the backbone, as certificates name it."""

    async def start(self, certificates: Sequence[Served]) -> None:
        """Makes ready for these certificates, and no others; an adapter that does not load is unavailable.

        Raises:
            GatewayError: if it cannot serve as it must.
        """

    async def add(self, certificates: Sequence[Served]) -> None:
        """Makes ready for these certificates too, while others are served.

        Raises:
            GatewayError: if one of them cannot be served.
        """

    def reply(self, asked: Asked, certificate: Certified, tenant: str) -> AsyncGenerator[Piece]:
        """The replies, piece by piece, each one's last piece with its finish.

        Raises:
            Refused: if it cannot be answered with this adapter.
        """

    def bare(self, asked: Asked, certificate: Certified) -> AsyncGenerator[Piece]:
        """The backbone's own replies to what a certificate is for: for operators, and for no tenant.

        Raises:
            Refused: if it cannot be answered.
        """

    async def close(self) -> None:
        """Ends what is under way."""


def require_system(asked: Asked, served: Served) -> None:
    """Passes unless a system message would replace the one that the certificate was measured behind.

    Raises:
        Refused: if it would.
    """
    if served.system and any(one.role == "system" for one in asked.messages):
        raise Refused(400, "invalid_value", "this authorisation has a system prompt of its own; send none")


HALF = "�"
"""What a tokenizer shows where a letter's bytes are not all there."""


class Wording:
    """The text of one reply, given out as far as it is certain."""

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, stops
        self._given = ""

    def new(self, tokens: Sequence[int], *, ended: bool) -> tuple[str, bool]:
        """What is new and certain once the reply has these tokens, and whether a stop text has ended it."""
        text = self._decode(list(tokens))
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            return self._give(text[: min(ends)]), True
        if not ended:
            text = text.rstrip(HALF)
            text = text[: len(text) - self._held(text)]
        return self._give(text), False

    def _held(self, text: str) -> int:
        """How many of the last characters may be a stop text's first ones."""
        return max(
            (size for stop in self._stops for size in range(1, len(stop)) if text.endswith(stop[:size])),
            default=0,
        )

    def _give(self, text: str) -> str:
        # Decoded longer, a text may lose what stood at its end; what was given out stays.
        if not text.startswith(self._given):
            return ""
        new, self._given = text[len(self._given) :], text
        return new
