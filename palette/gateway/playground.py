"""What an operator asks to see: the backbone's reply and an authorisation's, side by side.

As with ``palette ask`` a prompt that holds one of the floor is not asked, and a reply that holds one is not
shown. What was asked, and how it ended, is in the ledger as the operator's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from uuid import uuid4

from palette.authorisation import Certified
from palette.gateway.admission import Admission
from palette.gateway.asking import Asked, Message
from palette.gateway.backend import Piece
from palette.gateway.ledger import Event
from palette.gateway.operators import OperatorKey
from palette.gateway.refusals import Refused

LONGEST = 4000
"""Characters of a prompt at most."""
OPERATOR = "the operator"
"""In place of a tenant's id, which has no space."""


@dataclass(frozen=True)
class Sides:
    """What both replied to a prompt; None of a reply that is withheld."""

    prompt: str
    name: str
    backbone: str | None
    authorised: str | None


class Playground:
    """Asks for operators; ``holds_floor`` tells whether a text holds a prompt of the floor."""

    def __init__(self, admission: Admission, holds_floor: Callable[[str], bool]) -> None:
        self._admission, self._holds_floor = admission, holds_floor

    async def ask(self, key: OperatorKey, certificate: Certified, prompt: str) -> Sides:
        """What the backbone and a certificate's adapter reply.

        Raises:
            Refused: if the prompt is none or on the floor, the backend cannot answer, or the ledger takes
                nothing.
        """
        prompt = prompt.strip()
        if not prompt or len(prompt) > LONGEST:
            raise Refused(400, "invalid_value", f"a prompt must have 1 to {LONGEST} characters")
        services, name = self._admission.services, "+".join(sorted(certificate.domains))
        withheld = self._holds_floor(prompt)
        asked = Asked(name, (Message("user", prompt),), services.limits.default_tokens, stated=False)

        def event(kind: str, status: int, reason: str, tokens: int | None = None) -> Event:
            return Event(
                kind,
                credential=key.id,
                model=name,
                reason=reason,
                status=status,
                adapter=certificate.adapter,
                certificate=certificate.id,
                completion_tokens=tokens,
                prompt_hmac=services.keyed(asked.said),
                request=request,
                remarks={"operator": key.name},
            )

        request = uuid4().hex
        await self._admission.record(
            event("playground", 403 if withheld else 200, "floor" if withheld else "asked")
        )
        if withheld:
            raise Refused(403, "floor", "the prompt holds one of the floor; it is withheld, and not asked")
        said, status, reason = [], 500, "failed"
        tokens = 0
        try:
            with self._admission.quotas.answering(OPERATOR):
                for pieces in (
                    services.backend.bare(asked, certificate),
                    services.backend.reply(asked, certificate, OPERATOR),
                ):
                    text, count = await _whole(pieces, services.limits.piece_seconds)
                    tokens += count
                    said.append(None if self._holds_floor(text) else text)
            status, reason = 200, "finished"
        except Refused as refused:
            status, reason = refused.status, refused.recorded
            raise
        finally:
            await self._admission.record(event("playground_reply", status, reason, tokens))
        return Sides(prompt, name, *said)


async def _whole(pieces: AsyncGenerator[Piece], seconds: float) -> tuple[str, int]:
    """A reply, and how many tokens it has."""
    text, tokens = "", 0
    try:
        async with asyncio.timeout(seconds), aclosing(pieces):
            async for piece in pieces:
                text, tokens = text + piece.text, piece.tokens
    except TimeoutError:
        raise Refused(504, "backend_slow", "the backend did not answer in time") from None
    return text, tokens
