"""The backend behind an address: what it is sent, what is believed of it, and what it may not be."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from palette.errors import GatewayError
from palette.gateway.asking import Asked, Message
from palette.gateway.backend import Piece, Served
from palette.gateway.refusals import Refused
from palette.gateway.remote import Remote
from palette.gateway.upstream import Upstream, read_key
from palette.gateway.vllm import line
from tests.fixtures.upstream import BASE, StandIn
from tests.gateway.calls import calling, chat, shown
from tests.gateway.fakes import BACKBONE, Clock, certified, digest, key

MEDICAL, LEGAL, BOTH = certified("medical"), certified("legal"), certified("legal", "medical")
CERTIFICATES = [Served(each, lambda: None, lambda folder: None) for each in (MEDICAL, LEGAL, BOTH)]
NAMES = [each.facts.adapter for each in CERTIFICATES]
ASKED = Asked("medical", (Message("user", "how much ?"),), 20)


def remote(server: StandIn, **more: Any) -> Remote:
    url = more.pop("url", "http://127.0.0.1:8000/v1")
    return Remote(BACKBONE, Upstream(url, transport=server.transport(), **more), b"k" * 32)


def started(server: StandIn, certificates: list[Served] = CERTIFICATES) -> None:
    async def start() -> None:
        backend = remote(server)
        await backend.start(certificates)
        await backend.close()

    asyncio.run(start())


def reply(server: StandIn, asked: Asked = ASKED, tenant: str = "hospital", **more: Any) -> list[Piece]:
    async def ask() -> list[Piece]:
        backend = remote(server, **more)
        await backend.start(CERTIFICATES)
        try:
            return [piece async for piece in backend.reply(asked, MEDICAL, tenant)]
        finally:
            await backend.close()

    return asyncio.run(ask())


def good(**more: Any) -> StandIn:
    return StandIn([*NAMES], **more)


def test_a_server_with_every_adapter_by_its_digest_is_taken():
    server = good()
    started(server)
    assert {"/v1/models", "/openapi.json", "/metrics", "/v1/chat/completions"} == set(server.paths)


WRONG: dict[str, tuple[Callable[[], StandIn], str]] = {
    "nobody is there": (lambda: StandIn(down=True), "no list of models"),
    "an adapter is missing": (lambda: StandIn(NAMES[:2]), NAMES[2]),
    "adapters have names": (lambda: StandIn(["medical", "legal", "legal+medical"]), "by its digest"),
    "it loads adapters while it runs": (lambda: good(loading=True), "load_lora_adapter"),
    "requests name a list of adapters": (lambda: good(fields=("loras",)), "loras"),
    "requests scale adapters": (lambda: good(fields=("lora_weights",)), "lora_weights"),
    "it combines what a request names": (lambda: good(combining=True), "two adapters at once"),
    "it has an outer cache": (lambda: good(metrics="lmcache:hits 1\n"), "outer cache"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_server_is_refused_at_start_if(what):
    make, told = WRONG[what]
    with pytest.raises(GatewayError, match=told):
        started(make())


def test_the_body_is_built_anew_and_names_the_adapter_by_its_digest():
    server = good()
    asked = replace(ASKED, stop=("x",), seed=5, temperature=0.5, n=2)
    reply(server, asked)
    body = server.bodies[-1]
    salt = body.pop("cache_salt")
    assert body == {
        "model": MEDICAL.adapter,
        "messages": [{"role": "user", "content": "how much ?"}],
        "max_tokens": 20,
        "n": 2,
        "temperature": 0.5,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "stop": ["x"],
        "seed": 5,
        "chat_template_kwargs": {"enable_thinking": False, "thinking": False},
    }
    assert len(salt) == 64
    assert salt not in (MEDICAL.adapter, MEDICAL.id)


def test_a_salt_is_one_for_a_certificate_and_a_tenant_and_no_client_can_name_it():
    backend = remote(good())
    salts = {backend.salt(each, tenant) for each in (MEDICAL, LEGAL) for tenant in ("hospital", "firm")}
    assert len(salts) == 4
    assert backend.salt(MEDICAL, "hospital") in salts
    other = Remote(BACKBONE, backend.upstream, b"another key")
    assert other.salt(MEDICAL, "hospital") not in salts


def test_the_servers_words_come_back_with_its_counts():
    found = reply(good())
    assert "".join(each.text for each in found) == f"{MEDICAL.adapter[:8]} the dose is two grains"
    assert [each.finish for each in found] == [None] * 5 + ["stop"]
    assert (found[-1].tokens, found[-1].prompt) == (6, 7)
    assert reply(good(usage=False))[-1].tokens == 6


BROKEN: dict[str, tuple[StandIn, int, str]] = {
    "it answers with the backbone": (good(downgrade=True), 503, "another_model"),
    "it stops in the middle": (good(cut=3), 503, "reply_cut"),
    "it says what is no reply": (good(garbage=True), 503, "unreadable_reply"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_reply_is_thrown_away_if(what):
    server, status, reason = BROKEN[what]
    with pytest.raises(Refused) as refused:
        reply(server)
    assert (refused.value.status, refused.value.reason) == (status, reason)


@pytest.mark.parametrize(
    ("status", "told"), [(400, 400), (404, 503), (429, 429), (500, 503), (503, 503), (302, 503), (401, 503)]
)
def test_what_it_refuses_is_told_without_its_words(status, told):
    async def ask() -> Refused:
        server = good()
        backend = remote(server)
        await backend.start(CERTIFICATES)
        server.status = status
        with pytest.raises(Refused) as refused:
            [piece async for piece in backend.reply(ASKED, MEDICAL, "hospital")]
        await backend.close()
        return refused.value

    found = asyncio.run(ask())
    assert found.status == told
    assert "internals" not in found.message


def test_a_server_that_goes_down_is_503_through_the_gateway(world):
    server = good()

    async def ask() -> Any:
        async with calling(world.services(backend=remote(server))) as client:
            first = await client.post("/v1/chat/completions", json=chat(), headers=shown(key("hospital")))
            server.down = True
            second = await client.post("/v1/chat/completions", json=chat(), headers=shown(key("hospital")))
            return first, second

    first, second = asyncio.run(ask())
    assert first.json()["choices"][0]["message"]["content"].startswith(MEDICAL.adapter[:8])
    assert second.status_code == 503
    assert MEDICAL.adapter not in first.text + second.text
    assert BASE not in first.text


def test_nothing_of_a_client_reaches_the_server(world):
    server = good()
    backend = remote(server, key="the-servers-own")

    async def ask() -> None:
        async with calling(world.services(backend=backend)) as client:
            headers = {**shown(key("hospital")), "X-Request-Id": "evil", "Cookie": "a=b"}
            reply = await client.post("/v1/chat/completions", json=chat(user="evil"), headers=headers)
            assert reply.status_code == 200

    asyncio.run(ask())
    assert server.headers[-1]["authorization"] == "Bearer the-servers-own"
    sent = json.dumps(server.bodies[-1]) + str(server.headers[-1])
    assert "evil" not in sent
    assert key("hospital") not in sent
    assert "cookie" not in server.headers[-1]


def test_nothing_that_came_with_one_reply_goes_with_the_next_request():
    server = good()

    async def answer(request: httpx.Request) -> httpx.Response:
        response = await server._answer(request)
        response.headers["Set-Cookie"] = "session=hospital"
        return response

    async def ask() -> None:
        upstream = Upstream("http://127.0.0.1:8000/v1", transport=httpx.MockTransport(answer))
        backend = Remote(BACKBONE, upstream, b"k" * 32)
        await backend.start(CERTIFICATES)
        for tenant in ("hospital", "firm"):
            assert [piece async for piece in backend.reply(ASKED, MEDICAL, tenant)]
        await backend.close()

    asyncio.run(ask())
    assert len(server.bodies) >= 2
    assert "cookie" not in server.headers[-1]


def test_a_certificates_system_prompt_goes_first_and_a_tenants_own_is_refused():
    server = good()
    own = replace(CERTIFICATES[0], system="you are brief")

    async def ask(asked: Asked) -> None:
        backend = remote(server)
        await backend.start([own])
        [piece async for piece in backend.reply(asked, MEDICAL, "hospital")]
        await backend.close()

    asyncio.run(ask(ASKED))
    assert server.bodies[-1]["messages"][0] == {"role": "system", "content": "you are brief"}
    with pytest.raises(Refused, match="send none"):
        asyncio.run(ask(replace(ASKED, messages=(Message("system", "x"), *ASKED.messages))))


ELSEWHERE = (
    "http://10.0.0.5:8000/v1 http://example.org/v1 http://127.0.0.1.example.org/v1 ftp://127.0.0.1 "
    "http://user@127.0.0.1/v1 127.0.0.1:8000"
)


@pytest.mark.parametrize("url", ELSEWHERE.split())
def test_a_server_elsewhere_is_refused(url):
    with pytest.raises(GatewayError):
        Upstream(url)


def test_a_server_elsewhere_needs_a_word():
    assert Upstream("http://10.0.0.5:8000/v1", elsewhere=True)
    for url in ("http://127.0.0.1:8000/v1", "http://[::1]:8000/v1", "http://localhost:8000/v1"):
        assert Upstream(url)
    assert "hush" not in repr(Upstream("http://localhost:8000", "hush"))


def test_a_servers_key_is_one_word(tmp_path):
    file = tmp_path / "key"
    file.write_text("hush\n")
    assert read_key(file) == "hush"
    file.write_text("two words")
    with pytest.raises(GatewayError, match="one word"):
        read_key(file)
    with pytest.raises(GatewayError, match="must be readable"):
        read_key(tmp_path / "none")


def test_the_vllm_command_names_digests_and_opens_nothing_else(tmp_path):
    def write(rank: int) -> Callable[[Path], None]:
        def written(folder: Path) -> None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))

        return written

    certificates = [replace(CERTIFICATES[0], write=write(8)), replace(CERTIFICATES[2], write=write(16))]
    words = shlex.split(line("a/model", certificates, tmp_path))
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=False" in words
    at = {word: words[index + 1] for index, word in enumerate(words[:-1]) if word.startswith("--")}
    assert at["--host"] == "127.0.0.1"
    assert at["--max-loras"] == "1"
    assert at["--max-lora-rank"] == "16"
    modules = [json.loads(word) for word in words if word.startswith("{")]
    assert {each["name"] for each in modules} == {MEDICAL.adapter, BOTH.adapter}
    assert all(Path(each["path"]).name == each["name"] for each in modules)
    assert not any("kv-transfer" in word for word in words)
    with pytest.raises(GatewayError, match="needs a certified adapter"):
        line("a/model", [], tmp_path)


def test_digests_are_what_fakes_say():
    assert MEDICAL.adapter == digest("adapter medical")
    assert Clock()().tzinfo is not None


@contextmanager
def counting(behind: bytes) -> Iterator[tuple[str, list[int]]]:
    """A server on a socket that counts connections; ``behind`` comes after the last event of each stream."""
    connections: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            connections.append(1)
            super().setup()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            said = {"index": 0, "delta": {"content": "two"}, "finish_reason": "stop"}
            event = json.dumps({"model": MEDICAL.adapter, "choices": [said]})
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (f"data: {event}\n\ndata: [DONE]\n\n".encode(), behind):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))

        def log_message(self, *said: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1", connections
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("behind", "connections"), [(b"", 1), (b"data: more\n\n", 3), (b": and nothing more comes", 3)]
)
def test_a_connection_serves_the_next_reply_where_a_stream_ends_behind_its_last_event(behind, connections):
    async def ask(url: str) -> None:
        backend = Remote(BACKBONE, Upstream(url), b"k" * 32)
        backend._connections, backend._served = backend.upstream.connections(), {MEDICAL.id: CERTIFICATES[0]}
        for _ in range(3):
            assert [piece.text async for piece in backend.reply(ASKED, MEDICAL, "hospital")] == ["two"]
        await backend.close()

    with counting(behind) as (url, seen):
        asyncio.run(ask(url))
    assert len(seen) == connections


def test_the_backbone_is_asked_bare_under_its_own_name_and_salt():
    server = good()

    async def ask() -> list[str]:
        backend = remote(server)
        await backend.start(CERTIFICATES)
        try:
            return [piece.text async for piece in backend.bare(ASKED, MEDICAL)]
        finally:
            await backend.close()

    assert asyncio.run(ask())[0].strip() == BASE
    bare, salts = server.bodies[-1], {reply(server) and server.bodies[-1]["cache_salt"]}
    assert bare["model"] == BASE
    assert bare["cache_salt"] not in salts


def test_an_adapter_that_the_server_has_since_is_added():
    server = StandIn(NAMES[:1])

    async def ask() -> list[Piece]:
        backend = remote(server)
        await backend.start(CERTIFICATES[:1])
        try:
            with pytest.raises(GatewayError, match="by its digest"):
                await backend.add(CERTIFICATES[1:2])
            with pytest.raises(Refused):
                await anext(backend.reply(ASKED, LEGAL, "firm"))
            server.adapters.append(NAMES[1])
            await backend.add(CERTIFICATES[1:2])
            return [piece async for piece in backend.reply(ASKED, LEGAL, "firm")]
        finally:
            await backend.close()

    assert asyncio.run(ask())[0].text.strip() == NAMES[1][:8]
