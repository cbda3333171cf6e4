"""The commands of the ledger: verify, export and head."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from palette.cli.call import Call, command
from palette.cli.grants import KEYS, KeysFile
from palette.cli.tenants import StoreUrl, opened

ledger = typer.Typer(
    name="ledger",
    help="The record of what was decided, granted and revoked.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@ledger.command()
@command()
def verify(
    call: Call,
    heads: Annotated[
        list[Path] | None,
        typer.Option("--head", help="a signed head that was kept elsewhere; repeatable", metavar="FILE"),
    ] = None,
    keys: KeysFile = KEYS,
    store: StoreUrl = None,
) -> None:
    """Find what was edited, taken away, moved or cut off, by the number of its entry."""
    from palette.gateway.auditing import audit

    with opened(store, keys) as one:
        result = audit(one, heads or [])
    call.result(result, "audit")
    call.end(result["holds"])


@ledger.command()
@command("output")
def export(
    call: Call,
    after: Annotated[int, typer.Option(help="only entries behind this number", min=0)] = 0,
    store: StoreUrl = None,
) -> None:
    """Write the entries as JSON, a line each, as they were hashed."""
    from palette.files import atomic
    from palette.gateway.auditing import export as lines_of

    with opened(store) as one:
        if call.output is None:
            for line in lines_of(one, after):
                sys.stdout.write(line + "\n")
            return
        with atomic(call.output) as temporary, temporary.open("w", encoding="utf-8") as stream:
            stream.writelines(line + "\n" for line in lines_of(one, after))
    call.result({"output": str(call.output)}, "written")


@ledger.command()
@command("output")
def head(
    call: Call,
    key: Annotated[Path | None, typer.Option("--key", help="sign it, by a key of ledgers")] = None,
    store: StoreUrl = None,
) -> None:
    """Say where the ledger ends, and sign it, to be kept elsewhere."""
    from palette.errors import SignatureError
    from palette.files import write_text
    from palette.gateway.auditing import head as head_of
    from palette.signing import Purpose, read_private
    from palette.signing.instants import now

    if call.output is not None and key is None:
        raise SignatureError("a head that is written must be signed", got="no key", remedy="give --key")
    with opened(store) as one:
        signer = None if key is None else read_private(key, Purpose.LEDGER)
        result, envelope = head_of(one, signer, now())
    if envelope is not None and call.output is not None:
        write_text(call.output, envelope.text + "\n")
    call.result({**result, "output": None if call.output is None else str(call.output)}, "ledger_head")
