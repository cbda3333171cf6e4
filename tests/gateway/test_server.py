"""A gateway on a socket, asked by the official client, stopped in the middle of replies."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Thread

import httpx
import pytest

from palette.errors import GatewayError
from palette.gateway import server as module
from palette.gateway.app import create_app
from palette.gateway.limits import Limits
from palette.gateway.server import listening, serve
from tests.gateway.calls import chat, shown
from tests.gateway.fakes import World, certified, key

openai = pytest.importorskip("openai")


class Running:
    """A gateway that runs in a thread of its own."""

    def __init__(self, world: World) -> None:
        self.address, self.ready, self.servers = "", Event(), []
        self._gateway = create_app(world.services())
        self._thread = Thread(target=self._run)

    def _run(self) -> None:
        with listening("127.0.0.1", 0) as listener:
            asyncio.run(serve(self._gateway, listener, self._told))

    def _told(self, address: str) -> None:
        self.address = address
        self.ready.set()

    def stop(self) -> None:
        for each in self.servers:
            each.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()


@contextmanager
def running(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    found = Running(world)
    made = module.server_of

    def keeping(gateway):
        found.servers.append(made(gateway))
        return found.servers[-1]

    monkeypatch.setattr(module, "server_of", keeping)
    found._thread.start()
    assert found.ready.wait(10)
    try:
        yield found
    finally:
        found.stop()


def client_of(gateway: Running, secret: str = key("hospital")) -> openai.OpenAI:
    http = httpx.Client(trust_env=False)
    return openai.OpenAI(
        base_url=f"{gateway.address}/v1", api_key=secret, max_retries=0, timeout=10, http_client=http
    )


def test_the_official_client_works_unchanged(world, monkeypatch):
    asked = {"model": "medical", "messages": [{"role": "user", "content": "how much ?"}]}
    with running(world, monkeypatch) as gateway, client_of(gateway) as client:
        assert [each.id for each in client.models.list()] == ["medical"]
        assert client.models.retrieve("medical").id == "medical"
        whole = client.chat.completions.create(**asked, max_completion_tokens=20, temperature=0.5, seed=3)
        assert whole.choices[0].message.content.endswith("two grains")
        assert whole.usage.total_tokens == 13
        talk = [*asked["messages"], whole.choices[0].message, {"role": "user", "content": "and then ?"}]
        assert (
            client.chat.completions.create(model="medical", messages=talk).choices[0].finish_reason == "stop"
        )
        stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        said = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
        assert said == whole.choices[0].message.content
        assert chunks[-1].usage.completion_tokens == 6
        text = client.completions.create(model="medical", prompt="how much ?")
        assert text.choices[0].text.endswith("two grains")
        with pytest.raises(openai.PermissionDeniedError) as denied:
            client.chat.completions.create(**{**asked, "model": "legal"})
        assert denied.value.code == "not_granted"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("legal")
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(**asked, extra_body={"vllm_xargs": {"a": 1}})
        assert bad.value.code == "unknown_field"
        with client_of(gateway, "pk_nobody_0") as stranger, pytest.raises(openai.AuthenticationError):
            stranger.models.list()


def test_the_official_client_raises_where_a_stream_is_ended(world, monkeypatch):
    world.limits = Limits(watch_seconds=0.02)
    world.backend.words, world.backend.pause = tuple("abcdefghij" * 10), 0.005
    world.backend.before = lambda index: world.store.held.clear() if index == 10 else None
    with running(world, monkeypatch) as gateway, client_of(gateway) as client:
        stream = client.chat.completions.create(**chat(), stream=True)
        with pytest.raises(openai.APIError, match="no grant is in force"):
            list(stream)


def test_a_stop_lets_streams_end_and_the_ledger_has_all_of_it(world, monkeypatch):
    world.backend.words, world.backend.pause = tuple("abcdefghij" * 4), 0.01
    with running(world, monkeypatch) as gateway, ThreadPoolExecutor(4) as pool:

        def stream() -> str:
            with httpx.Client(trust_env=False) as client:
                asked = {"json": chat(stream=True), "headers": shown(key("hospital"))}
                return client.post(f"{gateway.address}/v1/chat/completions", **asked).text

        replies = [pool.submit(stream) for _ in range(4)]
        while len(world.backend.asked) < 4:
            time.sleep(0.005)
        gateway.stop()
        assert all(each.result().endswith("data: [DONE]\n\n") for each in replies)
    assert [each.kind for each in world.ledger.events][-1] == "stop"
    assert {each.reason for each in world.ledger.of("reply")} == {"finished"}
    assert len(world.ledger.of("reply")) == 4


def test_streams_that_do_not_end_in_time_are_cut_and_recorded(world, monkeypatch):
    world.limits = Limits(stop_seconds=1)
    world.backend.words, world.backend.pause = ("a",) * 1000, 0.05
    with running(world, monkeypatch) as gateway, ThreadPoolExecutor(1) as pool:

        def stream() -> str:
            with httpx.Client(trust_env=False, timeout=20) as client:
                asked = {"json": chat(stream=True), "headers": shown(key("hospital"))}
                try:
                    return client.post(f"{gateway.address}/v1/chat/completions", **asked).text
                except httpx.HTTPError:
                    return "cut"

        reply = pool.submit(stream)
        while not world.backend.asked:
            time.sleep(0.005)
        gateway.stop()
        assert "[DONE]" not in reply.result()
    kinds = [each.kind for each in world.ledger.events]
    assert kinds == ["start", "decision", "reply", "stop"]
    assert world.ledger.of("reply")[0].reason == "client_gone"


def test_many_at_once_are_each_answered_by_their_own_adapter(world, monkeypatch):
    world.limits = Limits(
        requests_a_minute=10_000, tenant_requests_a_minute=10_000, at_once=100, tenant_at_once=100
    )
    with running(world, monkeypatch) as gateway, httpx.Client(trust_env=False, timeout=20) as client:
        wanted = [("hospital", "medical"), ("firm", "legal+medical")] * 20

        def ask(pair: tuple[str, str]) -> bool:
            body, headers = chat(pair[1]), shown(key(pair[0]))
            reply = client.post(f"{gateway.address}/v1/chat/completions", json=body, headers=headers).json()
            said = reply["choices"][0]["message"]["content"]
            return bool(said.startswith(certified(*pair[1].split("+")).adapter[:8]))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, wanted))
    assert len(world.ledger.of("decision")) == len(world.ledger.of("reply")) == 40


POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
RAW = {
    "a head without end": b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 70_000,
    "two lengths": POST + b"Content-Length: 3\r\n\r\n{}",
    "a length and chunks": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no http": b"\x16\x03\x01\x00\xa5\x01\x00\x00",
    "nul": b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("what", RAW)
def test_what_is_no_request_opens_nothing(world, monkeypatch, what):
    with running(world, monkeypatch) as gateway:
        port = int(gateway.address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
            raw.sendall(RAW[what])
            raw.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := raw.recv(65536):
                answer += chunk
        assert not answer.startswith(b"HTTP/1.1 200")
    assert not world.backend.asked


def test_a_head_names_no_program_and_no_log_a_path(world, monkeypatch, capfd):
    with running(world, monkeypatch) as gateway, httpx.Client(trust_env=False) as client:
        reply = client.get(f"{gateway.address}/{key('hospital')}")
    assert "server" not in reply.headers
    assert reply.headers["x-content-type-options"] == "nosniff"
    told = capfd.readouterr()
    assert key("hospital") not in told.out + told.err + reply.text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_it_listens_on_this_machine_alone(host):
    with pytest.raises(GatewayError):
        listening(host, 0)


def test_small_parts_of_a_reply_are_sent_at_once():
    async def undelayed() -> int:
        found = asyncio.get_running_loop().create_future()

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken = writer.get_extra_info("socket")
            found.set_result(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with listening("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(accepted, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                writer.close()
                return await found

    assert asyncio.run(undelayed())


def test_a_connection_is_kept_longer_than_clients_keep_theirs(world):
    usual = httpx.Limits().keepalive_expiry
    assert module.server_of(create_app(world.services())).config.timeout_keep_alive > 2 * usual


def test_a_port_that_is_taken_is_one_sentence():
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(GatewayError, match="choose another with --port"):
            listening("127.0.0.1", port)


def test_a_ledger_that_takes_nothing_lets_no_gateway_start(world):
    world.ledger.full = True
    gateway = create_app(world.services())

    async def run() -> None:
        with listening("127.0.0.1", 0) as listener:
            await serve(gateway, listener, lambda address: None)

    with pytest.raises(GatewayError, match="a ledger that can be written"):
        asyncio.run(run())
    assert world.backend.ended == ["closed"]
    assert json.dumps([each.kind for each in world.ledger.events]) == "[]"
