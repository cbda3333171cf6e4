"""The commands of certificates: certify, verify and revoke, and those of keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palette.cli.call import Call, command

keys = typer.Typer(
    name="keys",
    help="Make keys that certify, authorise or seal the ledger, and say which are trusted.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Trusted = Annotated[Path, typer.Option("--keys", help="the list of trusted keys")]
KeyFile = Annotated[Path, typer.Option("--key", help="the private key that certifies, a PEM file")]
Log = Annotated[Path | None, typer.Option("--log", help="the transparency log, a file that only grows")]
Named = Annotated[str, typer.Argument(help="its id, whole, or the file of its public part", metavar="KEY")]
KEYS, LIST = Path("keys.json"), Path("revoked.dsse.json")


@command("output")
def certify(
    call: Call,
    folder: Annotated[
        Path, typer.Argument(help="the folder of a run, or of an adapter with its report", metavar="RUN")
    ],
    key: KeyFile,
    approver: Annotated[str, typer.Option(help="who answers for it; never who trained it")],
    trainer: Annotated[
        str | None, typer.Option(help="who trained it (default: the account that owns the weights)")
    ] = None,
    valid_days: Annotated[int, typer.Option(help="days that it holds, 366 at most")] = 180,
    canaries: Annotated[
        int, typer.Option(help="benign replies by which a server tells the adapter; 0 needs no model")
    ] = 4,
    log: Log = None,
    cyclonedx: Annotated[Path | None, typer.Option(help="write it as CycloneDX 1.7 too")] = None,
    spdx: Annotated[Path | None, typer.Option(help="write it as SPDX 3.0.1 too")] = None,
    openssf: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="sign by OpenSSF model-signing too, with this elliptic key"),
    ] = None,
) -> None:
    """Sign what an adapter opens and the evidence for it; a failed gate is signed as failed."""
    from palette.stages.certify import certify as certify_run

    result = certify_run(
        folder,
        key,
        approver,
        trainer,
        valid_days,
        call.progress,
        output=call.output,
        canaries=canaries,
        log=log,
        cyclonedx=cyclonedx,
        spdx=spdx,
        openssf=openssf,
    )
    call.result(result, "certificate")
    call.end(result["passed"])


@command()
def verify(
    call: Call,
    folder: Annotated[Path, typer.Argument(help="the folder of a certified adapter", metavar="FOLDER")],
    trusted: Trusted = KEYS,
    revoked: Annotated[Path | None, typer.Option(help="the list of revoked certificates")] = None,
    log: Log = None,
) -> None:
    """Say what a certificate says, if it holds; status 3 if it is expired or revoked."""
    from palette.stages.verify import verify as verify_folder

    result = verify_folder(folder, trusted, revoked, log)
    call.result(result, "verified")
    call.end(result["in_force"])


@command()
def revoke(
    call: Call,
    certificate: Annotated[str, typer.Argument(help="its id, or the folder of its adapter")],
    key: KeyFile,
    reason: Annotated[str, typer.Option(help="why, which is recorded")],
    trusted: Trusted = KEYS,
    revoked: Annotated[Path, typer.Option(help="the list of revoked certificates")] = LIST,
    log: Log = None,
) -> None:
    """Put a certificate onto the signed list of those that hold no more."""
    from palette.stages.revoke import revoke as revoke_certificate

    call.result(revoke_certificate(certificate, key, reason, trusted, revoked, log), "revocation")


@keys.command("new")
@command()
def new(
    call: Call,
    file: Annotated[Path, typer.Argument(help="where the private key is to lie", metavar="FILE")],
    purpose: Annotated[str, typer.Option(help="certify, authorise or ledger")],
    holder: Annotated[str, typer.Option(help="whose key it is")],
    trust: Annotated[Path | None, typer.Option(help="add it to this list of trusted keys")] = None,
) -> None:
    """Make a key for one purpose; only its owner can read it."""
    from palette.stages.keys import new_key

    call.result(new_key(file, purpose, holder, trust), "key")


@keys.command("trust")
@command()
def trust(
    call: Call,
    public: Annotated[list[Path], typer.Argument(help="public parts of keys", metavar="FILE...")],
    trusted: Trusted = KEYS,
) -> None:
    """Add keys to those that are trusted; ask their holders for the ids first."""
    from palette.stages.keys import trust_keys

    call.result(trust_keys(public, trusted), "keys")


@keys.command("list")
@command()
def list_(call: Call, trusted: Trusted = KEYS) -> None:
    """List the trusted keys."""
    from palette.stages.keys import list_keys

    call.result(list_keys(trusted), "keys")


@keys.command("retire")
@command()
def retire(call: Call, key: Named, trusted: Trusted = KEYS) -> None:
    """Let a key sign nothing new; what it signed before holds."""
    from palette.stages.keys import retire_key

    call.result(retire_key(key, trusted), "keys")


@keys.command("revoke")
@command()
def revoke_key(call: Call, key: Named, trusted: Trusted = KEYS) -> None:
    """Let nothing hold that a key ever signed, whenever it says that it did."""
    from palette.stages.keys import revoke_key as revoke_one

    call.result(revoke_one(key, trusted), "keys")
