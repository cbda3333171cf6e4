"""What a server behind the gateway must be: on this machine, with adapters by digest, combining none."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from palette.errors import GatewayError
from palette.gateway.limits import Limits

if TYPE_CHECKING:
    import httpx

COMBINING = frozenset(
    {"adapters", "adapter_ids", "lora", "loras", "lora_ids", "lora_names", "lora_requests", "lora_weights"}
)
"""Fields of requests by which servers combine or scale adapters."""
CHANGING = ("load_lora_adapter", "unload_lora_adapter", "lora-adapters", "load_adapter", "add_adapter")
"""Ends of paths by which adapters are changed while a server runs."""
OUTER_CACHES = ("lmcache", "kv_connector", "mooncake")
"""Words in a server's figures by which caches outside it show; their keys may leave the adapter out."""
TRIED = "palette"
REFUSALS = range(400, 500)


@dataclass(frozen=True)
class Upstream:
    """The address of a server, and its key."""

    url: str
    key: str | None = field(default=None, repr=False)
    elsewhere: bool = False
    """Whether it may be on another machine: then whoever can reach it there has what every tenant has."""
    limits: Limits = field(default_factory=Limits)
    transport: httpx.AsyncBaseTransport | None = field(default=None, repr=False)
    """What takes requests there, if not the network."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise GatewayError(
                "an upstream must be an address such as http://127.0.0.1:8000/v1", got=ascii(self.url)[:80]
            )
        if not (self.elsewhere or _is_loopback(parts.hostname)):
            raise GatewayError(
                "an upstream must be on this machine, where tenants cannot reach it past the gateway",
                got=parts.hostname,
                remedy="give --upstream-elsewhere if nobody else can reach it",
            )

    def client(self) -> httpx.AsyncClient:
        """What asks it what it is: no proxy of the environment's, no redirect."""
        import httpx

        return httpx.AsyncClient(
            base_url=f"{self.url.rstrip('/')}/",
            headers=self._headers,
            transport=self.connections(),
            trust_env=False,
            follow_redirects=False,
            timeout=self._patience,
        )

    def connections(self) -> httpx.AsyncBaseTransport:
        """What takes tenants' requests there, and keeps nothing of one, such as a cookie, for the next."""
        from palette.gateway.connections import Connections

        return self.transport or Connections()

    def request(self, body: Mapping[str, Any]) -> httpx.Request:
        """The request for a reply."""
        import httpx

        patience = {"timeout": self._patience.as_dict()}
        return httpx.Request("POST", self._place, headers=self._headers, json=body, extensions=patience)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    @property
    def _patience(self) -> httpx.Timeout:
        import httpx

        return httpx.Timeout(self.limits.piece_seconds, connect=5.0)

    @cached_property
    def _place(self) -> httpx.URL:
        import httpx

        return httpx.URL(f"{self.url.rstrip('/')}/chat/completions")


def read_key(path: Path) -> str:
    """The key of a server, from a file.

    Raises:
        GatewayError: if it cannot be read, or is none.
    """
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise GatewayError(
            "an upstream's key must be readable", got=type(error).__name__, where=path
        ) from None
    if not key or any(not "!" <= sign <= "~" for sign in key):
        raise GatewayError("an upstream's key must be one word", got="something else", where=path)
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def require_upstream(client: httpx.AsyncClient, adapters: Sequence[str]) -> str | None:
    """The name of the backbone, if a server has each of the adapters, by its digest, and serves it alone.

    It is the one model that has no parent and is none of the adapters; None where there is not just one.

    Raises:
        GatewayError: if it is not there, lacks one, changes or combines them at a request's word, or keeps
            what it read in a cache outside itself.
    """
    where = str(client.base_url)
    names = await _names(client)
    if missing := sorted(set(adapters) - names.keys()):
        raise GatewayError(
            "an upstream must have each certified adapter by its digest",
            got=f"none of the name {missing[0]}",
            remedy="start it with the command that palette serve --print-vllm writes",
            where=where,
        )
    root = where.rstrip("/").removesuffix("/v1")
    described = await _json(client, f"{root}/openapi.json")
    if described is not None and (found := sorted(set(_offers(described)))):
        raise GatewayError(
            "an upstream must neither change nor combine adapters at a request's word",
            got=", ".join(found[:4]),
            remedy="start it without run-time loading, and without lists of adapters",
            where=where,
        )
    await _require_no_outer_cache(client, f"{root}/metrics")
    for digest in sorted(adapters)[:1]:
        await _require_single(client, digest)
    bare = [name for name, parent in names.items() if parent is None and name not in adapters]
    return bare[0] if len(bare) == 1 else None


async def _names(client: httpx.AsyncClient) -> dict[str, Any]:
    """The models of a server, and what each is an adapter of."""
    content = await _json(client, "models")
    try:
        return {str(each["id"]): each.get("parent") for each in (content or {})["data"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise GatewayError(
            "an upstream must be an OpenAI-compatible server that runs",
            got="no list of models",
            remedy="start it first, and look at its log",
            where=str(client.base_url),
        ) from error


async def _json(client: httpx.AsyncClient, path: str) -> Any:
    """The JSON of a page; None where there is none."""
    import httpx

    try:
        response = await client.get(path)
        return response.json() if response.status_code == 200 else None
    except (httpx.HTTPError, ValueError):
        return None


def _offers(described: Any) -> Iterator[str]:
    """What a server's description offers that it must not: paths, and fields of requests."""
    if not isinstance(described, dict):
        return
    for path in described.get("paths") or {}:
        if str(path).rstrip("/").endswith(CHANGING):
            yield str(path)[:80]
    schemas = (described.get("components") or {}).get("schemas") or {}
    for name, schema in schemas.items():
        properties = schema.get("properties") if isinstance(schema, dict) else None
        if not str(name).endswith("CompletionRequest") or not isinstance(properties, dict):
            continue
        yield from COMBINING & properties.keys()
        if "array" in str(properties.get("model")):
            yield "model, a list"


async def _require_no_outer_cache(client: httpx.AsyncClient, path: str) -> None:
    import httpx

    try:
        response = await client.get(path)
    except httpx.HTTPError:
        return
    text = response.text.lower() if response.status_code == 200 else ""
    if found := [word for word in OUTER_CACHES if word in text]:
        raise GatewayError(
            "an upstream must keep keys and values of prompts to itself: an outer cache may mix adapters",
            got=found[0],
            remedy="start it without a connector to one",
            where=str(client.base_url),
        )


async def _require_single(client: httpx.AsyncClient, digest: str) -> None:
    """Passes if requests that name two adapters at once, or one in a list of their own, are refused."""
    import httpx

    plain: dict[str, Any] = {"messages": [{"role": "user", "content": TRIED}], "max_tokens": 1}
    pair = [digest, digest]
    tries: list[dict[str, Any]] = [{"model": pair}, {"model": ",".join(pair)}, {"model": "+".join(pair)}]
    for tried in tries:
        try:
            response = await client.post("chat/completions", json={**plain, **tried})
        except httpx.HTTPError as error:
            raise GatewayError(
                "an upstream must answer",
                got=type(error).__name__,
                remedy="look at its log",
                where=str(client.base_url),
            ) from error
        if response.status_code not in REFUSALS:
            raise GatewayError(
                "an upstream must refuse requests for two adapters at once",
                got=f"status {response.status_code} to a model {type(tried['model']).__name__}",
                remedy="serve each set of domains as its own certified merge",
                where=str(client.base_url),
            )
