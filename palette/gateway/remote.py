"""The backend behind an address: vLLM, or any OpenAI-compatible server, on this machine.

What goes there is built anew from what was read: nothing of a client's body or headers is handed on. An
adapter is named by its digest, the cache's salt comes from the certificate, and a reply of any other model
than the one that was asked for is thrown away.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from palette.authorisation import Certified
from palette.gateway.asking import Asked
from palette.gateway.backend import Piece, Served, require_system
from palette.gateway.refusals import Refused, busy, unavailable
from palette.gateway.upstream import Upstream, require_upstream
from palette.signing.envelope import strict_json

if TYPE_CHECKING:
    import httpx

EVENT, END = "data:", "[DONE]"
END_SECONDS = 0.05
"""Time for the end of a stream to come behind its last event."""
NOBODY = "no tenant"
"""In place of a tenant's id, which has no space, in the salt of what the backbone is asked."""
LONGEST = 1 << 20
"""Characters of one event at most."""
FINISHES = {"stop", "length"}
"""Why a reply may end; whatever else a server calls it is told as ``stop``."""


@dataclass
class Remote:
    """Serves certified adapters through another server, which alone reaches the model."""

    backbone: str
    """The digest of the backbone that the server is said to run, as certificates name it."""
    upstream: Upstream
    key: bytes = field(repr=False)
    """What salts of caches are derived with."""
    _connections: httpx.AsyncBaseTransport | None = field(default=None, repr=False)
    _bare: str | None = field(default=None, repr=False)
    _served: dict[str, Served] = field(default_factory=dict, repr=False)

    async def start(self, certificates: Sequence[Served]) -> None:
        """Checks that the server has each adapter by its digest, and combines none.

        Raises:
            GatewayError: if it is not there, has not all of them, or lets a request combine them.
        """
        self._bare = await self._require(certificates)
        self._connections = self.upstream.connections()

    async def add(self, certificates: Sequence[Served]) -> None:
        """Checks that the server has each of these too.

        Raises:
            GatewayError: if it is not there, has not all of them, or lets a request combine them.
        """
        await self._require(certificates)

    async def _require(self, certificates: Sequence[Served]) -> str | None:
        """The name of the server's backbone; what it is checked for is served from now on."""
        ours = [each for each in certificates if each.facts.backbone == self.backbone]
        async with self.upstream.client() as client:
            name = await require_upstream(client, [each.facts.adapter for each in ours])
        self._served |= {each.facts.id: each for each in ours}
        return name

    def reply(self, asked: Asked, certificate: Certified, tenant: str) -> AsyncGenerator[Piece]:
        """The replies, piece by piece.

        Raises:
            Refused: if the server cannot answer, or answers with another model.
        """
        return self._asked(asked, certificate, tenant, certificate.adapter)

    async def bare(self, asked: Asked, certificate: Certified) -> AsyncGenerator[Piece]:
        """The backbone's own replies to what a certificate is for: for operators, and for no tenant.

        Raises:
            Refused: if it cannot be answered.
        """
        if self._bare is None:
            raise unavailable("backbone_not_named")
        async with aclosing(self._asked(asked, certificate, NOBODY, self._bare)) as said:
            async for piece in said:
                yield piece

    async def _asked(
        self, asked: Asked, certificate: Certified, tenant: str, model: str
    ) -> AsyncGenerator[Piece]:
        import httpx

        served = self._served.get(certificate.id)
        if self._connections is None or served is None:
            raise unavailable("adapter_not_loaded")
        require_system(asked, served)
        request = self.upstream.request({**self.body(asked, served, tenant), "model": model})
        try:
            async with aclosing(await self._connections.handle_async_request(request)) as response:
                # Events are always in UTF-8.
                response.encoding = "utf-8"
                if response.status_code != 200:
                    raise _told(response.status_code, response.headers.get("retry-after", ""))
                lines = response.aiter_lines()
                async for piece in pieces(lines, model, asked.n):
                    yield piece
                await ended(lines)
        except httpx.HTTPError as error:
            raise unavailable() from error

    async def close(self) -> None:
        """Closes the connections."""
        if self._connections is not None:
            await self._connections.aclose()

    def body(self, asked: Asked, served: Served, tenant: str) -> dict[str, Any]:
        """What the server is sent, all of it."""
        messages = [{"role": one.role, "content": one.content} for one in asked.messages]
        if served.system:
            messages.insert(0, {"role": "system", "content": served.system})
        body: dict[str, Any] = {
            "model": served.facts.adapter,
            "messages": messages,
            "max_tokens": asked.max_tokens,
            "n": asked.n,
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "presence_penalty": asked.presence_penalty,
            "frequency_penalty": asked.frequency_penalty,
            # Always a stream, so that it can be ended.
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "cache_salt": self.salt(served.facts, tenant),
        }
        if asked.stop:
            body["stop"] = list(asked.stop)
        if asked.seed is not None:
            body["seed"] = asked.seed
        if served.thinking == "closed":
            body["chat_template_kwargs"] = {"enable_thinking": False, "thinking": False}
        return body

    def salt(self, certified: Certified, tenant: str) -> str:
        """What parts a certificate's and a tenant's share of the server's cache from every other one's."""
        said = f"palette-cache-salt/1\0{certified.id}\0{certified.adapter}\0{tenant}"
        return hmac.new(self.key, said.encode(), hashlib.sha256).hexdigest()


async def pieces(lines: AsyncIterator[str], model: str, choices: int) -> AsyncGenerator[Piece]:
    """What a server's events say, as far as a reply says it: text, counts of tokens, and ends.

    Raises:
        Refused: if an event is of another model, cannot be read, or the stream ends before its replies.
    """
    tokens, prompt, going = dict.fromkeys(range(choices), 0), 0, set(range(choices))
    async for line in lines:
        if not line.startswith(EVENT):
            continue
        text = line[len(EVENT) :].strip()
        if text == END:
            break
        content = _event(text)
        # Another model's name is another model's reply: the backbone's, where an adapter was lost.
        if content["model"] != model:
            raise unavailable("another_model")
        usage = content.get("usage") or {}
        prompt = _count(usage, "prompt_tokens", prompt)
        for choice in content["choices"]:
            index = choice["index"]
            if index not in going:
                raise unavailable("unreadable_reply")
            new = choice["delta"].get("content") or ""
            finish = choice.get("finish_reason")
            # Where the server does not count as it goes, one event is a token; so it is of several replies.
            told = _count(usage, "completion_tokens", 0) if choices == 1 else 0
            tokens[index] = max(tokens[index] + bool(new), told)
            if finish:
                going.discard(index)
            if new or finish:
                ends = (finish if finish in FINISHES else "stop") if finish else None
                yield Piece(index, new, tokens[index], prompt, ends)
    if going:
        raise unavailable("reply_cut")


async def ended(lines: AsyncIterator[str]) -> None:
    """Returns once a stream has ended behind its last event, so that its connection can be used again.

    One that does not end soon, or goes on, is closed by whoever leaves it.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            async for line in lines:
                if line:
                    return


def _event(text: str) -> dict[str, Any]:
    try:
        if len(text) > LONGEST:
            raise ValueError
        content = strict_json(text)
        for choice in content["choices"]:
            if type(choice["index"]) is not int or not isinstance(choice["delta"].get("content"), str | None):
                raise TypeError
            if not isinstance(choice.get("finish_reason"), str | None):
                raise TypeError
        if not isinstance(content["model"], str) or not isinstance(content.get("usage"), dict | None):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise unavailable("unreadable_reply") from None
    found: dict[str, Any] = content
    return found


def _count(usage: dict[str, Any], name: str, before: int) -> int:
    value = usage.get(name)
    return value if type(value) is int and value >= 0 else before


def _told(status: int, retry_after: str) -> Refused:
    """What a client is told of a server's refusal; its words stay there."""
    if status == 429:
        return busy(float(retry_after) if retry_after.isdecimal() and len(retry_after) < 5 else 1.0)
    if status in (400, 413, 422):
        return Refused(400, "backend_refused", "the model cannot take this request; it may be too long")
    return unavailable("adapter_not_loaded" if status == 404 else "backend_unavailable")
