"""The commands of tenants: who they are, their keys, what is granted to them, and what is revoked."""

from __future__ import annotations

import getpass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palette.cli.call import Call, command, listed
from palette.errors import PaletteError, StoreError

if TYPE_CHECKING:
    from datetime import datetime

    from palette.authorisation import Credential, Tenant
    from palette.gateway.operations import Operator
    from palette.gateway.store import Store

PACKAGES = ("sqlalchemy", "alembic", "cryptography")
"""What a store and its ledger import beside what Palette needs anyway."""


def group(name: str, text: str) -> typer.Typer:
    """Commands under one name."""
    return typer.Typer(name=name, help=text, no_args_is_help=True, rich_markup_mode=None)


tenant = group("tenant", "Tenants of the gateway, and their keys.")
key = group("key", "Keys by which a tenant asks.")
tenant.add_typer(key)
operator_group = group("operator", "Keys of operators, by which the gateway's page at /admin is entered.")

StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store", help="its URL or file (default: PALETTE_STORE, or the user's data)", metavar="URL"
    ),
]
Who = Annotated[
    str | None, typer.Option("--who", help="who does it, for the ledger (default: the user)", metavar="NAME")
]
TenantId = Annotated[str, typer.Argument(help="the tenant's id", metavar="TENANT")]
KeyId = Annotated[str, typer.Argument(help="the key's id", metavar="KEY")]
OfTenant = Annotated[str | None, typer.Argument(help="of one tenant alone", metavar="[TENANT]")]
Why = Annotated[str, typer.Option("--reason", help="why, for the ledger")]


@tenant.command()
@command()
def init(call: Call, store: StoreUrl = None) -> None:
    """Make a store with its ledger and its pepper, or bring one up to date."""
    from palette.gateway.credentials import pepper_path
    from palette.gateway.database import data_folder

    with opened(store, create=True) as one:
        pepper = pepper_path(one.database.path, data_folder())
        call.result({"store": one.database.shown, "pepper": str(pepper)}, "store")


@tenant.command()
@command()
def add(
    call: Call,
    tenant_id: TenantId,
    name: Annotated[str | None, typer.Option(help="what it is called (default: its id)")] = None,
    store: StoreUrl = None,
    who: Who = None,
) -> None:
    """Add a tenant, to whom nothing is granted yet."""
    with opened(store) as one:
        call.result({"tenants": [_tenant(operator(one, who).add_tenant(tenant_id, name))]}, "tenants")


@tenant.command("list")
@command()
def list_tenants(call: Call, store: StoreUrl = None) -> None:
    """List the tenants."""
    with opened(store) as one:
        call.result({"tenants": [_tenant(each) for each in one.tenants()]}, "tenants")


@tenant.command()
@command()
def suspend(call: Call, tenant_id: TenantId, reason: Why, store: StoreUrl = None, who: Who = None) -> None:
    """Suspend a tenant: from the next request on it is answered nothing."""
    with opened(store) as one:
        call.result({"tenants": [_tenant(operator(one, who).suspend(tenant_id, reason))]}, "tenants")


@tenant.command()
@command()
def resume(call: Call, tenant_id: TenantId, reason: Why, store: StoreUrl = None, who: Who = None) -> None:
    """Let a suspended tenant ask again."""
    with opened(store) as one:
        call.result({"tenants": [_tenant(operator(one, who).resume(tenant_id, reason))]}, "tenants")


@tenant.command()
@command()
def withdraw(
    call: Call,
    certificate: Annotated[
        str, typer.Argument(help="its id, the digest of its statement", metavar="CERTIFICATE")
    ],
    reason: Why,
    store: StoreUrl = None,
    who: Who = None,
) -> None:
    """Withdraw an adapter's certificate: from the next request on no tenant is answered with it."""
    revoke(call, "certificate", certificate, reason, (store, who))


@key.command("new")
@command()
def new_key(
    call: Call,
    tenant_id: TenantId,
    domains: Annotated[
        str | None, typer.Option(help="domains it may ask for at most, joined by commas (default: all)")
    ] = None,
    days: Annotated[int | None, typer.Option(help="days until it expires (default: never)", min=1)] = None,
    until: Annotated[str | None, typer.Option(help="or the instant, such as 2026-11-30T12:00:00Z")] = None,
    parent: Annotated[
        str | None, typer.Option(help="the id of a key of the tenant's within which it stays")
    ] = None,
    store: StoreUrl = None,
    who: Who = None,
) -> None:
    """Make a key for a tenant. Its text is printed once, and kept nowhere."""
    from palette.signing.instants import now

    expires = None if days is None and until is None else end_of(now(), days, until)
    chosen = None if domains is None else listed(domains)
    with opened(store) as one:
        made, text = operator(one, who).add_key(tenant_id, chosen, expires, parent)
    call.result({**_credential(made), "key": text}, "tenant_key")


@key.command("list")
@command()
def list_keys(call: Call, tenant_id: OfTenant = None, store: StoreUrl = None) -> None:
    """List keys by their ids."""
    with opened(store) as one:
        call.result({"keys": [_credential(each) for each in one.credentials(tenant_id)]}, "tenant_keys")


@key.command("revoke")
@command()
def revoke_key(
    call: Call,
    key_id: KeyId,
    reason: Why,
    store: StoreUrl = None,
    who: Who = None,
) -> None:
    """Revoke a key and all that descend from it, from the next request on."""
    revoke(call, "key", key_id, reason, (store, who))


@operator_group.command("add")
@command()
def add_operator(
    call: Call,
    name: Annotated[str, typer.Argument(help="the operator's name, for the ledger", metavar="NAME")],
    store: StoreUrl = None,
    who: Who = None,
) -> None:
    """Make a key for the page at /admin. Its text is printed once, and kept nowhere."""
    with opened(store) as one:
        from palette.gateway.operators import add_operator as added

        made, text = added(operator(one, who), name)
    call.result({**vars(made), "key": text}, "operator_key")


@operator_group.command("list")
@command()
def list_operators(call: Call, store: StoreUrl = None) -> None:
    """List operators' keys by their ids."""
    with opened(store) as one:
        from palette.gateway.operators import operators

        call.result({"operators": [vars(each) for each in operators(one)]}, "operators")


@operator_group.command("remove")
@command()
def remove_operator(
    call: Call,
    key_id: KeyId,
    reason: Why,
    store: StoreUrl = None,
    who: Who = None,
) -> None:
    """Take an operator's key away; without any there is no page."""
    with opened(store) as one:
        from palette.gateway.operators import remove_operator as removed

        removed(operator(one, who), key_id, reason)
    call.result({"id": key_id}, "operator_removed")


def require_packages(who: str, names: tuple[str, ...], error: type[PaletteError]) -> None:
    """Returns nothing, if all are installed.

    Raises:
        PaletteError: of the kind that is given, if some are not.
    """
    if missing := [name for name in names if find_spec(name) is None]:
        raise error(
            f"{who} the packages {', '.join(names)}",
            got=f"none of {', '.join(missing)}",
            remedy="pip install 'palette-llm[tenants]'",
        )


def opened(url: str | None, keys: Path | None = None, *, create: bool = False) -> Store:
    """The store of a URL, or the usual one, which believes the keys of a file.

    Raises:
        StoreError: if it, or a package that it needs, is missing, or it cannot be used.
        OutputError: if the list of keys cannot be read.
        SignatureError: if it is no list of keys.
    """
    require_packages("tenants need", PACKAGES, StoreError)
    from palette.gateway.database import store_url
    from palette.gateway.store import Store
    from palette.signing import KeyRing, read_key_ring

    ring = KeyRing({}) if keys is None else read_key_ring(keys)
    return Store(store_url(url), ring, create=create)


def revoke(call: Call, kind: str, subject: str, reason: str, options: tuple[str | None, str | None]) -> None:
    """Revokes something in a store, and says since when; ``options`` are the store and who does it."""
    from palette.signing.instants import told

    store, who = options
    with opened(store) as one:
        at = operator(one, who).revoke(kind, subject, reason)
    call.result({"kind": kind, "id": subject, "revoked": told(at)}, "withdrawn")


def operator(store: Store, who: str | None) -> Operator:
    """Who does something to a store, by name; the user, where none is given."""
    from palette.gateway.operations import Operator

    return Operator(store, who or getpass.getuser())


def end_of(start: datetime, days: int | None, until: str | None) -> datetime:
    """When a period ends, by its days or its instant.

    Raises:
        AuthorisationError: if neither is given, or both are, or it is out of the calendar.
    """
    from datetime import timedelta

    from palette.errors import AuthorisationError

    if (days is None) is (until is None):
        got = "neither" if days is None else "both"
        raise AuthorisationError("an end must be given by --days or by --until", got=got)
    try:
        return instant_of("--until", str(until)) if days is None else start + timedelta(days=days)
    except OverflowError as error:
        raise AuthorisationError("a period must end in the calendar", got=f"{days} days") from error


def instant_of(option: str, text: str) -> datetime:
    """The instant that an option's text tells.

    Raises:
        AuthorisationError: if it is none.
    """
    from palette.errors import AuthorisationError
    from palette.signing.instants import instant

    try:
        return instant(text)
    except ValueError as error:
        law = f"{option} must be an instant such as 2026-11-30T12:00:00Z"
        raise AuthorisationError(law, got=ascii(text)[:80]) from error


def _tenant(one: Tenant) -> dict[str, Any]:
    return {"id": one.id, "name": one.name, "suspended": one.suspended}


def _credential(one: Credential) -> dict[str, Any]:
    return {
        "id": one.id,
        "tenant": one.tenant,
        "domains": None if one.domains is None else sorted(one.domains),
        **told_of(expires=one.expires, revoked=one.revoked),
    }


def told_of(**instants: datetime | None) -> dict[str, str | None]:
    """Instants as a result has them."""
    from palette.signing.instants import told

    return {name: None if at is None else told(at) for name, at in instants.items()}
