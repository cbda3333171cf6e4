"""The commands of grants: what tenants may ask for, until when, on whose word."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palette.cli.call import Call, command, listed
from palette.cli.tenants import (
    OfTenant,
    StoreUrl,
    TenantId,
    Who,
    Why,
    end_of,
    group,
    instant_of,
    opened,
    operator,
    revoke,
    told_of,
)

if TYPE_CHECKING:
    from palette.authorisation import Grant

grant = group("grant", "What tenants may ask for, until when, on whose word.")

KEYS = Path("keys.json")
KeysFile = Annotated[Path, typer.Option("--keys", help="the keys that are trusted")]


@grant.command("add")
@command()
def add_grant(
    call: Call,
    tenant_id: TenantId,
    domains: Annotated[str, typer.Option(help="the domains, joined by commas")],
    evidence: Annotated[str, typer.Option(help="the contract, ticket or approval that it rests on")],
    key: Annotated[Path, typer.Option("--key", help="the authoriser's private key")],
    days: Annotated[int | None, typer.Option(help="days from the beginning until it expires", min=1)] = None,
    begins: Annotated[
        str | None, typer.Option("--from", help="when it begins, such as 2026-11-30T12:00:00Z (default: now)")
    ] = None,
    until: Annotated[str | None, typer.Option(help="when it expires, instead of --days")] = None,
    keys: KeysFile = KEYS,
    store: StoreUrl = None,
    who: Who = None,
) -> None:
    """Grant domains to a tenant for a time, by an authoriser's signature."""
    from palette.authorisation import grant as sign_grant
    from palette.signing import Purpose, read_private
    from palette.signing.instants import now

    issued = now()
    start = instant_of("--from", begins) if begins else issued
    period = (start, end_of(start, days, until))
    with opened(store, keys) as one:
        signer = read_private(key, Purpose.AUTHORISE)
        envelope = sign_grant(
            tenant_id, listed(domains), period=period, evidence=evidence, issued=issued, key=signer
        )
        made = operator(one, who).add_grant(envelope)
    call.result({"grants": [_grant(made)], "faults": {}}, "grants")


@grant.command("list")
@command()
def list_grants(
    call: Call, tenant_id: OfTenant = None, keys: KeysFile = KEYS, store: StoreUrl = None
) -> None:
    """List grants as their signatures hold; those that do not are named, and open nothing."""
    with opened(store, keys) as one:
        found = [_grant(each) for each in one.grants(tenant_id)]
        call.result({"grants": found, "faults": one.faults}, "grants")


@grant.command("revoke")
@command()
def revoke_grant(
    call: Call,
    grant_id: Annotated[str, typer.Argument(help="the grant's id", metavar="GRANT")],
    reason: Why,
    store: StoreUrl = None,
    who: Who = None,
) -> None:
    """Revoke a grant, from the next request on."""
    revoke(call, "grant", grant_id, reason, (store, who))


def _grant(one: Grant) -> dict[str, Any]:
    return {
        "id": one.id,
        "tenant": one.tenant,
        "domains": sorted(one.domains),
        **told_of(issued=one.issued, not_before=one.not_before, expires=one.expires, revoked=one.revoked),
        "evidence": one.evidence,
        "issuer": one.issuer,
        "digest": one.digest,
    }
