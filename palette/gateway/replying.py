"""A reply as it goes on: watched from its first piece to its last, and in the ledger however it ends.

The decision is taken again while a reply goes on, from what stands in the store then: a grant that ends, a
key or a certificate that is revoked, ends the reply within ``Limits.watch_seconds``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from palette.errors import PaletteError
from palette.gateway.admission import Admission
from palette.gateway.backend import Piece
from palette.gateway.monitor import Monitor
from palette.gateway.refusals import Refused, unavailable
from palette.gateway.visits import Admitted


class Replies:
    """Replies to requests that were admitted."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def to(self, admitted: Admitted) -> AsyncGenerator[Piece]:
        """The reply's pieces for as long as the decision stands; its end is in the ledger, whatever ends it.

        Raises:
            Refused: if the backend cannot answer, or the decision stands no longer.
        """
        tally = Tally()
        try:
            with self._admission.quotas.answering(str(admitted.decision.tenant)):
                async with aclosing(self._watched(admitted)) as pieces:
                    async for piece in pieces:
                        tally.add(piece)
                        yield piece
            tally.ended(200, "finished")
        except Refused as refused:
            tally.ended(refused.status, refused.recorded)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            tally.ended(499, "client_gone")
            raise
        except Exception:
            tally.ended(500, "failed")
            raise
        finally:
            await self._finish(admitted, tally)

    async def _finish(self, admitted: Admitted, tally: Tally) -> None:
        self._admission.monitor.replied(str(admitted.decision.tenant), tally.texts, tally.reason)
        await self._admission.finish(
            admitted,
            status=tally.status,
            reason=tally.reason,
            prompt_tokens=tally.prompt,
            completion_tokens=sum(tally.tokens.values()),
        )

    async def _watched(self, admitted: Admitted) -> AsyncGenerator[Piece]:
        limits = self._admission.services.limits
        loop = asyncio.get_running_loop()
        pieces = self._admission.services.backend.reply(
            admitted.asked, admitted.certificate, str(admitted.decision.tenant)
        )
        begun = checked = waited = loop.time()
        coming: asyncio.Task[Piece | None] | None = None
        try:
            while True:
                if coming is None:
                    coming, waited = loop.create_task(_next(pieces)), loop.time()
                await asyncio.wait({coming}, timeout=max(0.0, checked + limits.watch_seconds - loop.time()))
                if loop.time() - checked >= limits.watch_seconds:
                    await self._admission.require_still(admitted)
                    checked = loop.time()
                self._in_time(admitted)
                if coming.done():
                    piece = _result(coming)
                    if piece is None:
                        return
                    coming = None
                    yield piece
                elif loop.time() - waited > limits.piece_seconds:
                    raise Refused(504, "backend_slow", "the backend did not answer in time")
                if loop.time() - begun > limits.reply_seconds:
                    raise Refused(504, "reply_too_long", "the reply took longer than a reply may")
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
            await pieces.aclose()

    def _in_time(self, admitted: Admitted) -> None:
        """Passes until the instant at which the decision said that it ends."""
        until = admitted.decision.until
        if until is not None and self._admission.clock() >= until:
            raise Refused(403, "expired", "what this reply was allowed by has ended")


@dataclass
class Tally:
    """What a reply came to."""

    status: int = 500
    reason: str = "failed"
    prompt: int = 0
    tokens: dict[int, int] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)

    def add(self, piece: Piece) -> None:
        """Counts one more piece; of its text only what a judge needs is kept, until the reply's end."""
        self.prompt = max(self.prompt, piece.prompt)
        self.tokens[piece.index] = piece.tokens
        self.texts[piece.index] = (self.texts.get(piece.index, "") + piece.text)[: Monitor.READ]

    def ended(self, status: int, reason: str) -> None:
        """Notes how it ended."""
        self.status, self.reason = status, reason


async def _next(pieces: AsyncGenerator[Piece]) -> Piece | None:
    return await anext(pieces, None)


def _result(task: asyncio.Task[Piece | None]) -> Piece | None:
    try:
        return task.result()
    except (Refused, asyncio.CancelledError):
        raise
    except PaletteError as error:
        # What a backend says of itself is the log's; a client is told that there is none.
        raise unavailable() from error
