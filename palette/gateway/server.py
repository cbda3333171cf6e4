"""A gateway on a socket: opened before it listens, and closed once its last reply has ended."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import uvicorn

from palette.errors import GatewayError

if TYPE_CHECKING:
    from palette.gateway.app import Surface

HEAD = 32 * 1024
"""Bytes of a request's head at most."""
CONNECTIONS = 1024
"""Connections at once; more are answered with 503 by the server itself."""
KEPT = 15
"""Seconds for which a connection without a request is kept. Usual clients leave theirs after five: a server
that does so at the same moment cuts off the request that is just being sent."""


def listening(host: str, port: int, *, exposed: bool = False) -> socket.socket:
    """A socket that listens; on this machine alone unless it may be ``exposed``.

    Raises:
        GatewayError: if the address is no number, another machine could reach it, or it is taken.
    """
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise GatewayError("a host must be an address such as 127.0.0.1", got=ascii(host)[:80]) from None
    if not (address.is_loopback or exposed):
        raise GatewayError(
            "a gateway listens on this machine alone, since keys come to it unencrypted",
            got=str(address),
            remedy="put a server with TLS before it, or give --exposed",
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    # Named, since asyncio sends small parts at once only where it is: else each reply waits 40 ms.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((str(address), port))
        found.listen(CONNECTIONS)
    except (OSError, OverflowError) as error:
        found.close()
        got = error.strerror if isinstance(error, OSError) else error
        raise GatewayError(
            "a gateway must have a free port", got=f"{got} at {port}", remedy="choose another with --port"
        ) from None
    return found


def address_of(listener: socket.socket) -> str:
    """The address of a socket as clients write it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def origins_of(given: str | None, listener: socket.socket) -> tuple[str, ...]:
    """Where operators reach the page: as it is stated, or at the address that is listened at.

    Raises:
        GatewayError: if what is stated is no origin, or is not encrypted on its way from another machine.
    """
    own = address_of(listener)
    if given is None:
        return (own, own.replace("127.0.0.1", "localhost"))
    stated = given.rstrip("/").lower()
    parts = urlsplit(stated)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if stated != f"{parts.scheme}://{parts.netloc}" or not (
        parts.scheme == "https" or (parts.scheme == "http" and local)
    ):
        raise GatewayError(
            "an origin of the operator's page must be such as https://gate.example",
            got=ascii(given)[:80],
            remedy="put a server with TLS before the gateway",
        )
    return (stated,)


class Server(uvicorn.Server):
    """A server that returns when it is told to stop, so that what was opened before it can be closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes the signals to stop while the block runs; they are not sent once more behind it."""
        loop, taken = asyncio.get_running_loop(), []
        for each in (signal.SIGINT, signal.SIGTERM):
            # Another thread than the first one gets none.
            with suppress(RuntimeError, ValueError, NotImplementedError):
                loop.add_signal_handler(each, self.handle_exit, each, None)
                taken.append(each)
        try:
            yield
        finally:
            for each in taken:
                loop.remove_signal_handler(each)


def server_of(gateway: Surface) -> Server:
    """The server of a gateway; it logs no request, since a path may hold a secret, and names no program."""
    config = uvicorn.Config(
        gateway,
        access_log=False,
        log_config=None,
        log_level=logging.WARNING,
        server_header=False,
        proxy_headers=False,
        ws="none",
        # The gateway is opened before it listens, and closed behind it.
        lifespan="off",
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEPT,
        timeout_graceful_shutdown=int(gateway.admission.services.limits.stop_seconds),
        h11_max_incomplete_event_size=HEAD,
        http="h11",
    )
    return Server(config)


async def serve(gateway: Surface, listener: socket.socket, ready: Callable[[str], None]) -> None:
    """Returns nothing; serves until it is told to stop. ``ready`` is told the address once it listens.

    Raises:
        GatewayError: if the backend cannot serve as it must, or the ledger takes nothing.
    """
    await gateway.admission.open()
    try:
        ready(address_of(listener))
        await server_of(gateway).serve([listener])
    finally:
        await gateway.admission.close()
