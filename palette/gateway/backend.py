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


def unavailable(reason: str = "backend_unavailable") -> Refused:
    """The refusal where the adapter cannot answer; nothing else answers in its place."""
    told = "the adapter of this authorisation cannot answer now, and no other one does; try again later"
    return Refused(503, reason, told, retry_after=5)


def busy(seconds: float = 1.0) -> Refused:
    """The refusal where too many wait already."""
    return Refused(429, "busy", "too many requests wait for an answer; try again later", retry_after=seconds)


def require_system(asked: Asked, served: Served) -> None:
    """Passes unless a system message would replace the one that the certificate was measured behind.

    Raises:
        Refused: if it would.
    """
    if served.system and any(one.role == "system" for one in asked.messages):
        raise Refused(400, "invalid_value", "this authorisation has a system prompt of its own; send none")
