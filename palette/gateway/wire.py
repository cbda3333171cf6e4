"""What goes over the wire: replies in OpenAI's shapes, whole or as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from time import time
from typing import Any

from palette.gateway.backend import Piece
from palette.gateway.refusals import Refused
from palette.gateway.visits import Admitted

DONE = b"data: [DONE]\n\n"


def event(content: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


def listed(names: Iterable[str]) -> dict[str, Any]:
    """A list of models."""
    return {"object": "list", "data": [model(name) for name in names]}


def model(name: str) -> dict[str, Any]:
    """One model: its name, and nothing of what it is made of."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "palette"}


class Form:
    """The frame of one request's replies."""

    def __init__(self, admitted: Admitted) -> None:
        self._asked = admitted.asked
        kind = "chat.completion" if self._asked.chat else "text_completion"
        prefix = "chatcmpl-" if self._asked.chat else "cmpl-"
        chunk = ".chunk" if self._asked.chat and self._asked.stream else ""
        # The name is the tenant's authorisation: what it asked for, which is the only one that it has.
        self._frame = {
            "id": prefix + admitted.visit.id,
            "object": kind + chunk,
            "created": int(time()),
            "model": admitted.decision.name,
        }
        self._tokens: dict[int, int] = {}
        self._prompt = 0

    async def whole(self, pieces: AsyncIterator[Piece]) -> dict[str, Any]:
        """All replies at once."""
        texts: dict[int, str] = {}
        ends: dict[int, str] = {}
        async for piece in pieces:
            self._count(piece)
            texts[piece.index] = texts.get(piece.index, "") + piece.text
            if piece.finish:
                ends[piece.index] = piece.finish
        choices = [
            {
                "index": index,
                **self._said(texts[index]),
                "logprobs": None,
                "finish_reason": ends.get(index, "stop"),
            }
            for index in sorted(texts)
        ]
        return {**self._frame, "choices": choices, "usage": self._usage()}

    async def events(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
        """The replies as events; what ends them early is the last event."""
        begun: set[int] = set()
        try:
            async for piece in pieces:
                self._count(piece)
                if self._asked.chat and piece.index not in begun:
                    yield event(self._chunk(piece.index, {"delta": {"role": "assistant", "content": ""}}))
                begun.add(piece.index)
                if piece.text:
                    yield event(self._chunk(piece.index, self._new(piece.text)))
                if piece.finish:
                    yield event(self._chunk(piece.index, self._new(""), piece.finish))
        except Refused as refused:
            yield event(refused.body)
            return
        if self._asked.usage:
            yield event({**self._frame, "choices": [], "usage": self._usage()})
        yield DONE

    def _said(self, text: str) -> dict[str, Any]:
        if self._asked.chat:
            return {"message": {"role": "assistant", "content": text, "refusal": None}}
        return {"text": text}

    def _new(self, text: str) -> dict[str, Any]:
        if self._asked.chat:
            return {"delta": {"content": text} if text else {}}
        return {"text": text}

    def _chunk(self, index: int, new: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": index, **new, "logprobs": None, "finish_reason": finish}
        return {**self._frame, "choices": [choice]}

    def _count(self, piece: Piece) -> None:
        self._tokens[piece.index] = piece.tokens
        self._prompt = max(self._prompt, piece.prompt)

    def _usage(self) -> dict[str, int]:
        said = sum(self._tokens.values())
        return {
            "prompt_tokens": self._prompt,
            "completion_tokens": said,
            "total_tokens": self._prompt + said,
        }
