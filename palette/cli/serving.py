"""The command that serves tenants."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palette.cli.call import Call, command, listed
from palette.cli.tenants import PACKAGES, require_packages
from palette.errors import GatewayError, did_you_mean

if TYPE_CHECKING:
    from palette.gateway.identity import Provider
    from palette.gateway.limits import Limits
    from palette.gateway.upstream import Upstream


LIBRARIES = ("fastapi", "uvicorn", "httpx", "joserfc", "limits", "prometheus_client")
"""What the gateway imports beside its store's packages and what Palette needs anyway."""


@command()
def serve(
    call: Call,
    adapters: Annotated[
        list[Path], typer.Argument(help="folders of certified adapters", metavar="ADAPTER...")
    ],
    model: Annotated[str, typer.Option(help="the backbone: organism, a folder or a hub name")],
    keys: Annotated[Path, typer.Option(help="the list of trusted keys")] = Path("keys.json"),
    store: Annotated[str | None, typer.Option(help="the URL of the store (default: PALETTE_STORE)")] = None,
    revoked: Annotated[Path | None, typer.Option(help="the signed list of revoked certificates")] = None,
    ledger_key: Annotated[Path | None, typer.Option(help="the key that signs the ledger's end")] = None,
    ledger_head: Annotated[Path | None, typer.Option(help="where its signed end is written")] = None,
    host: Annotated[str, typer.Option(help="the address to listen at")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="the port; 0 takes a free one")] = 8400,
    exposed: Annotated[
        bool, typer.Option("--exposed", help="listen where other machines can reach it, without TLS")
    ] = False,
    admin_origin: Annotated[
        str | None,
        typer.Option(help="where operators reach /admin, such as https://gate.example (default: here)"),
    ] = None,
    metrics_token: Annotated[
        Path | None, typer.Option(help="the file of the token for /metrics, made where there is none")
    ] = None,
    issuer: Annotated[str | None, typer.Option(help="an identity provider whose tokens are taken")] = None,
    audience: Annotated[str | None, typer.Option(help="whom its tokens must be for")] = None,
    jwks: Annotated[Path | None, typer.Option(help="its public keys, a JWKS file")] = None,
    algorithms: Annotated[str, typer.Option(help="of its tokens, joined by commas")] = "RS256,ES256",
    limit: Annotated[
        list[str] | None, typer.Option(help="a limit, as name=number; repeatable (docs/gateway.md)")
    ] = None,
    limits_storage: Annotated[
        str, typer.Option(help="where rates are counted, for several gateways: redis://…")
    ] = "memory://",
    dtype: Annotated[str, typer.Option(help="the precision of a backbone in process")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, auto, or a device of this machine")] = "cpu",
    upstream: Annotated[
        str | None, typer.Option(help="an OpenAI-compatible server that runs the backbone")
    ] = None,
    upstream_key: Annotated[Path | None, typer.Option(help="the file of its key")] = None,
    upstream_elsewhere: Annotated[
        bool, typer.Option("--upstream-elsewhere", help="it is on another machine, which nobody else reaches")
    ] = False,
    print_vllm: Annotated[
        Path | None,
        typer.Option(
            help="write the adapters into this folder, print the vllm command, and end", metavar="DIR"
        ),
    ] = None,
) -> None:
    """Serve tenants: each its own authorisation by its certified adapter, and nothing else."""
    require_packages("a gateway needs", (*PACKAGES, *LIBRARIES), GatewayError)
    from palette.stages import serve as stage

    trust = stage.Trust(keys, store, revoked, ledger_key, ledger_head)
    limits = limits_of(limit or [])
    behind = _upstream(upstream, upstream_key, limits, elsewhere=upstream_elsewhere)
    served = stage.Model(model, dtype, device, behind)
    if print_vllm is not None:
        call.result(stage.vllm_command(adapters, served, trust, print_vllm), "vllm")
        return
    provider = _provider(issuer, audience, jwks, algorithms)
    door = stage.Door(host, port, exposed, metrics_token, provider, limits, limits_storage, admin_origin)

    def ready(told: dict[str, Any]) -> None:
        call.result(told, "serving")
        # Whoever started it waits for this line; the command goes on.
        sys.stdout.flush()

    stage.serve(adapters, served, trust, door, ready)


def limits_of(assigned: list[str]) -> Limits:
    """The limits with some of them set.

    Raises:
        GatewayError: if one is unknown, or not a positive number of its kind.
    """
    from dataclasses import fields, replace

    from palette.gateway.limits import Limits

    kinds = {each.name: type(getattr(Limits(), each.name)) for each in fields(Limits)}
    given: dict[str, float] = {}
    for text in assigned:
        name, _, value = text.partition("=")
        if name not in kinds:
            raise GatewayError(
                "a limit must be one of the gateway's",
                got=ascii(name)[:80],
                remedy=did_you_mean(name, kinds) or f"take one of {', '.join(kinds)}",
            )
        try:
            number = kinds[name](value)
        except ValueError:
            number = 0
        if not 0 < number < float("inf"):
            raise GatewayError(f"{name} must be a positive number", got=ascii(value)[:80])
        given[name] = number
    return replace(Limits(), **given)  # type: ignore[arg-type]


def _provider(
    issuer: str | None, audience: str | None, jwks: Path | None, algorithms: str
) -> Provider | None:
    from palette.gateway.identity import read_provider

    given = (issuer, audience, jwks)
    if not any(given):
        return None
    if issuer is None or audience is None or jwks is None:
        raise GatewayError(
            "an identity provider needs --issuer, --audience and --jwks",
            got="not all",
            remedy="give all three",
        )
    return read_provider(issuer, audience, jwks, listed(algorithms))


def _upstream(url: str | None, key: Path | None, limits: Limits, *, elsewhere: bool) -> Upstream | None:
    from palette.gateway.upstream import Upstream, read_key

    if url is None:
        return None
    return Upstream(url, read_key(key) if key is not None else None, elsewhere, limits)
