"""Does the gateway answer the right tenant under load, lose no entry, and how long does it take itself?

A stand-in for a server answers at once and says which adapter it was asked for. Before it stand, in
processes of their own, the gateway with a store and a ledger on the disk, and a plain proxy (uvicorn and
httpx) that hands requests on. Fifty clients ask as fast as they may; then both are asked a hundred times a
second in turn, and what the gateway takes beyond the proxy is its own; then the gateway is killed under load.

    python -m benchmarks.gateway [FOLDER]
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

import httpx
import numpy as np
import typer
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from benchmarks.machine import write
from palette.adapters.lora import Adapter
from palette.authorisation import Certified, grant
from palette.gateway.admission import Services
from palette.gateway.app import create_app
from palette.gateway.auditing import audit, export
from palette.gateway.backend import Served
from palette.gateway.identity import Credentials
from palette.gateway.limits import Limits
from palette.gateway.operations import Operator
from palette.gateway.recording import Heads
from palette.gateway.remote import Remote
from palette.gateway.server import listening, serve
from palette.gateway.store import Store
from palette.gateway.trusting import Catalogue
from palette.gateway.upstream import Upstream
from palette.signing import KeyRing, Purpose, generate, read_key_ring, read_private
from palette.signing.instants import now

REQUESTS, CLIENTS = 10_000, 50
RATE, SECONDS = 100, 20
KILLS, UNDER_LOAD = 10, 2.0
OPENED = (("legal",), ("medical",), ("legal", "medical"))
BACKBONE = sha256(b"backbone").hexdigest()
MANY = Limits(requests_a_minute=10**7, tenant_requests_a_minute=10**7, at_once=256, tenant_at_once=256)
ROLES = ("upstream", "proxy", "gateway")


def adapter_of(domains: tuple[str, ...]) -> str:
    """The digest by which the stand-in knows an adapter."""
    return sha256("+".join(domains).encode()).hexdigest()


def upstream(port: int) -> None:
    """A server that answers with the name of the adapter that it was asked for."""
    app, adapters = FastAPI(openapi_url=None), {adapter_of(each) for each in OPENED}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": each, "object": "model"} for each in sorted(adapters)]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.json()
        model = body["model"]
        if not isinstance(model, str) or model not in adapters:
            return JSONResponse({"error": {"message": "no such model"}}, 404)
        piece = {"index": 0, "delta": {"content": model}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 4, "completion_tokens": 1}
        event = {"model": model, "choices": [piece], "usage": usage}

        async def events() -> AsyncIterator[str]:
            yield f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    uvicorn.run(app, port=port, log_level="warning", access_log=False, http="h11")


def proxy(port: int, behind: int) -> None:
    """A plain proxy: it hands a request on and its reply back, and knows nobody."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=256)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{behind}", limits=limits) as client:
            app.state.client = client
            yield

    app = FastAPI(openapi_url=None, lifespan=life)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        reply = await app.state.client.post("/v1/chat/completions", content=await request.body())
        return Response(reply.content, reply.status_code, media_type="text/event-stream")

    uvicorn.run(app, port=port, log_level="warning", access_log=False, http="h11")


def gateway(port: int, behind: int, folder: Path) -> None:
    """The gateway, with its store and ledger on the disk."""
    ring, begins = read_key_ring(folder / "keys.json"), now() - timedelta(days=1)
    served = [
        Served(
            Certified(
                sha256(b"certificate" + "+".join(domains).encode()).hexdigest(),
                adapter_of(domains),
                frozenset(domains),
                BACKBONE,
                "floor",
                next(each.id for each in ring.keys.values() if each.purpose is Purpose.CERTIFY),
                begins,
                begins + timedelta(days=30),
            ),
            _none,
            lambda place: None,
        )
        for domains in OPENED
    ]
    heads = Heads(read_private(folder / "ledger.pem", Purpose.LEDGER), folder / "head.json")
    remote = Remote(BACKBONE, Upstream(f"http://127.0.0.1:{behind}/v1", limits=MANY), b"salt")
    with (
        listening("127.0.0.1", port) as listener,
        Store(url_of(folder), ring) as store,
        store.writer(heads) as recorder,
    ):
        known, catalogue = Credentials(store, None), Catalogue(served, lambda: ring)
        services = Services(store, recorder, known, catalogue, remote, store.keyed, MANY)
        asyncio.run(serve(create_app(services), listener, lambda address: None))


def _none() -> Adapter:
    raise AssertionError("no adapter is loaded here")


def url_of(folder: Path) -> str:
    """The store's address."""
    return f"sqlite:///{folder / 'tenants.db'}"


def prepared(folder: Path) -> list[tuple[str, str, str]]:
    """A key, the authorisation and the adapter of each client, whose tenants are granted in turn."""
    keys = {
        each: generate(folder / f"{each}.pem", each, each.value, now() - timedelta(days=2))
        for each in Purpose
    }
    ring = KeyRing.of(key.public for key in keys.values())
    ring.write(folder / "keys.json")
    clients = []
    with Store(url_of(folder), ring, create=True) as store:
        operator = Operator(store, "benchmark")
        for number in range(CLIENTS):
            tenant, domains = f"tenant-{number}", OPENED[number % len(OPENED)]
            operator.add_tenant(tenant)
            _, text = operator.add_key(tenant)
            period = (now() - timedelta(hours=1), now() + timedelta(days=1))
            operator.add_grant(
                grant(
                    tenant, domains, period=period, evidence="load", issued=now(), key=keys[Purpose.AUTHORISE]
                )
            )
            clients.append((text, "+".join(domains), adapter_of(domains)))
    return clients


@contextmanager
def started(role: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process of one role, once its port answers; it is stopped behind the block."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.gateway", role, *map(str, arguments)])
    try:
        last = time.monotonic() + 60
        while time.monotonic() < last:
            try:
                httpx.get(f"http://127.0.0.1:{arguments[0]}/health", timeout=1)
                break
            except httpx.HTTPError:
                time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()


async def hammered(
    port: int, clients: list[tuple[str, str, str]], until: Callable[[], bool]
) -> dict[str, Any]:
    """What came of clients that each ask again as soon as they are answered, until told to stop."""
    right, wrong, refused, broken, ids = 0, 0, 0, 0, []

    async def ask(client: httpx.AsyncClient, secret: str, model: str, adapter: str) -> None:
        nonlocal right, wrong, refused, broken
        body = {"model": model, "messages": [{"role": "user", "content": "which one ?"}], "max_tokens": 8}
        while not until():
            try:
                reply = await client.post(
                    "/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {secret}"}
                )
            except httpx.HTTPError:
                broken += 1
                return
            if reply.status_code != 200:
                refused += 1
                continue
            ids.append(reply.headers["x-request-id"])
            said = reply.json()["choices"][0]["message"]["content"]
            right, wrong = right + (said == adapter), wrong + (said != adapter)

    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=60) as client:
        await asyncio.gather(*(ask(client, *each) for each in clients))
    return {"right": right, "wrong": wrong, "refused": refused, "broken": broken, "ids": ids}


async def paced(ports: dict[str, int], client_of: tuple[str, str, str]) -> dict[str, list[float]]:
    """The milliseconds of requests that come so many a second, to each port in turn."""
    secret, model, adapter = client_of
    found: dict[str, list[float]] = {name: [] for name in ports}

    async def ask(client: httpx.AsyncClient, name: str) -> None:
        said = model if name == "gateway" else adapter
        body = {"model": said, "messages": [{"role": "user", "content": "which one ?"}], "max_tokens": 8}
        begun = time.perf_counter()
        reply = await client.post(
            f"http://127.0.0.1:{ports[name]}/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {secret}"},
        )
        assert reply.status_code == 200, reply.text
        found[name].append(1000 * (time.perf_counter() - begun))

    async with httpx.AsyncClient(timeout=60) as client:
        for name in (*ports, *ports):
            tasks: list[asyncio.Task[None]] = []
            begun = time.monotonic()
            for number in range(RATE * SECONDS // 2):
                await asyncio.sleep(max(0.0, begun + number / RATE - time.monotonic()))
                work: Coroutine[Any, Any, None] = ask(client, name)
                tasks.append(asyncio.create_task(work))
            await asyncio.gather(*tasks)
    return found


def kept(folder: Path) -> tuple[dict[str, set[str]], bool]:
    """The request ids of a ledger by kind of entry, and whether it holds."""
    ids: dict[str, set[str]] = {"decision": set(), "reply": set()}
    with Store(url_of(folder), read_key_ring(folder / "keys.json")) as store:
        for line in export(store):
            event = json.loads(line)["event"]
            if event["kind"] in ids and event.get("request"):
                ids[event["kind"]].add(event["request"])
        return ids, bool(audit(store)["holds"])


def loaded(folder: Path, clients: list[tuple[str, str, str]], ports: dict[str, int]) -> dict[str, Any]:
    """What came of many requests at once, and of a hundred a second beside the proxy."""
    behind = ports["upstream"]
    with started("gateway", ports["gateway"], behind, folder), started("proxy", ports["proxy"], behind):
        left, begun = iter(range(REQUESTS)), time.monotonic()
        found = asyncio.run(hammered(ports["gateway"], clients, lambda: next(left, None) is None))
        seconds = time.monotonic() - begun
        took = asyncio.run(paced({name: ports[name] for name in ("proxy", "gateway")}, clients[0]))
    held, holds = kept(folder)
    answered = set(found.pop("ids"))
    percentiles = {
        name: {f"p{q}": round(float(np.percentile(each, q)), 2) for q in (50, 99)}
        for name, each in took.items()
    }
    return {
        "requests": REQUESTS,
        "clients": CLIENTS,
        **found,
        "answers_without_an_entry": len(answered - held["decision"]) + len(answered - held["reply"]),
        "ledger_holds": holds,
        "requests_a_second": round(REQUESTS / seconds, 1),
        "milliseconds_at_100_a_second": percentiles,
        "own_p99": round(percentiles["gateway"]["p99"] - percentiles["proxy"]["p99"], 2),
    }


def killed(folder: Path, clients: list[tuple[str, str, str]], ports: dict[str, int]) -> dict[str, Any]:
    """What was lost where the gateway was killed under load."""
    answered: set[str] = set()
    wrong, holding = 0, 0
    for _ in range(KILLS):
        with started("gateway", ports["gateway"], ports["upstream"], folder) as process:
            last = time.monotonic() + UNDER_LOAD

            def until(process: subprocess.Popen[bytes] = process, last: float = last) -> bool:
                if time.monotonic() >= last and process.poll() is None:
                    os.kill(process.pid, signal.SIGKILL)
                return False

            found = asyncio.run(hammered(ports["gateway"], clients, until))
        answered |= set(found["ids"])
        wrong += found["wrong"]
        held, holds = kept(folder)
        holding += holds
    return {
        "kills": KILLS,
        "answers": len(answered),
        "wrong": wrong,
        "answers_without_a_decision": len(answered - held["decision"]),
        "ledgers_that_hold": holding,
    }


def main(
    role: Annotated[str, typer.Argument(help="a folder, or a process of the benchmark's own")] = "",
    port: Annotated[int, typer.Argument()] = 0,
    behind: Annotated[int, typer.Argument()] = 0,
    folder: Annotated[Path, typer.Argument()] = Path(),
) -> None:
    """Runs all, and writes results/gateway.json."""
    if role in ROLES:
        {"upstream": lambda: upstream(port), "proxy": lambda: proxy(port, behind)}.get(
            role, lambda: gateway(port, behind, folder)
        )()
        return
    home = Path(role or mkdtemp())
    home.mkdir(parents=True, exist_ok=True)
    clients = prepared(home)
    ports = {name: 18400 + number for number, name in enumerate(ROLES)}
    with started("upstream", ports["upstream"]):
        found = {"load": loaded(home, clients, ports), "killed": killed(home, clients, ports)}
    print(json.dumps(found, indent=2), file=sys.stderr)
    write("gateway", found)


if __name__ == "__main__":
    typer.run(main)
