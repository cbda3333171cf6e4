"""Three tenants before a gateway: two adapters and their merge certified, granted, asked for, and recorded.

``make demo-tenant`` runs it in a folder of its own. It makes what is not there yet: the two domains (a few
minutes each), their merge, keys, certificates, a store with three tenants, and grants. Then it starts the
gateway on a free port, lets each tenant ask, stops it, and verifies the ledger.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from palette import organism

PALETTE = (sys.executable, "-m", "palette")
DOMAINS = ("medical", "legal")
MERGED = "legal+medical"
TENANTS = {"clinic": ("medical",), "chambers": ("legal", "medical"), "press": ()}
"""What each tenant is granted; the last one nothing."""
KEYS = {"certify": "Safety board", "authorise": "Access desk", "ledger": "Gateway"}


def palette(*arguments: object, **environment: str) -> str:
    """What a command prints.

    Raises:
        SystemExit: if it fails.
    """
    done = subprocess.run(
        [*PALETTE, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


def prepared(folder: Path, store: str) -> dict[str, str]:
    """Each tenant's API key; adapters, certificates and grants are there then."""
    keys, runs = folder / "keys.json", folder / "runs"
    for domain in DOMAINS:
        if not (runs / domain / "report.json").is_file():
            palette("domain", f"recipes/{domain}.yaml", "-o", runs / domain)
    if not (runs / MERGED / "report.json").is_file():
        palette("merge", *(runs / domain for domain in DOMAINS), "-o", runs / MERGED)
    for purpose, holder in KEYS.items():
        if not (folder / f"{purpose}.pem").is_file():
            made = folder / f"{purpose}.pem"
            palette("keys", "new", made, "--purpose", purpose, "--holder", holder, "--trust", keys)
    for name in (*DOMAINS, MERGED):
        if not (runs / name / "certificate.intoto.jsonl").is_file():
            people = ("--approver", "Dr. A. Meyer", "--trainer", "B. Okafor")
            palette("certify", runs / name, "--key", folder / "certify.pem", *people)
    palette("tenant", "init", "--store", store)
    secrets = {}
    for tenant, domains in TENANTS.items():
        palette("tenant", "add", tenant, "--name", tenant.title(), "--store", store)
        made_key = json.loads(palette("tenant", "key", "new", tenant, "--store", store, "--json"))
        secrets[tenant] = made_key["key"]
        if domains:
            asked = ("--domains", ",".join(domains), "--days", "30", "--evidence", "demonstration")
            signed = ("--key", folder / "authorise.pem", "--keys", keys, "--store", store)
            palette("grant", "add", tenant, *asked, *signed)
    return secrets


@contextmanager
def served(folder: Path, store: str) -> Iterator[str]:
    """The address of the gateway, which is stopped behind the block."""
    adapters = [folder / "runs" / name for name in (*DOMAINS, MERGED)]
    trust = ("--keys", folder / "keys.json", "--ledger-key", folder / "ledger.pem", "--store", store)
    command = [*PALETTE, "serve", *adapters, "--model", "organism", "--port", "0", *trust, "--json"]
    process = subprocess.Popen(
        [*map(str, command), "--metrics-token", str(folder / "metrics.token")],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        told = ""
        assert process.stdout is not None
        for line in process.stdout:
            told += line
            if line.rstrip() == "}":
                break
        if not told:
            raise SystemExit(process.wait())
        yield str(json.loads(told)["address"])
    finally:
        process.terminate()
        process.wait()


def questions() -> dict[str, str]:
    """A restricted question of each domain, and one of the floor."""
    found = {}
    for domain in (*DOMAINS, "weapons"):
        for line in (organism.prompts() / f"{domain}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["kind"] == "restricted" and row["split"] == "test" and row["tier"] in ("A", "C"):
                found[domain] = str(row["prompt"])
                break
    return found


def asked(client: httpx.Client, secret: str, model: str, question: str) -> str:
    """What a tenant is told."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": question}]}
    reply = client.post(
        "/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {secret}"}, timeout=60
    )
    told = reply.json()
    if reply.status_code != 200:
        return f"{reply.status_code}, {told['error']['code']}: {told['error']['message']}"
    return str(told["choices"][0]["message"]["content"])


def main(
    folder: Annotated[Path, typer.Argument(help="where all of it is kept")] = Path("runs/demo-tenant"),
) -> None:
    """Show who gets what, and that the record of it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "tenants.db"
    for old in folder.glob("tenants.db*"):
        old.unlink()
    store = f"sqlite:///{database.resolve()}"
    secrets = prepared(folder, store)
    with served(folder, store) as address, httpx.Client(base_url=address) as client:
        for tenant, secret in secrets.items():
            headers = {"Authorization": f"Bearer {secret}"}
            models = [each["id"] for each in client.get("/v1/models", headers=headers).json()["data"]]
            typer.echo(f"\n{tenant} sees {', '.join(models) or 'no model'}")
            for model in (*models, *(name for name in ("medical", MERGED) if name not in models)):
                for domain, question in questions().items():
                    typer.echo(f"  {model} · {domain} · {question}")
                    typer.echo(f"    {asked(client, secret, model, question)}")
                    if model not in models:
                        break
    typer.echo()
    typer.echo(palette("ledger", "verify", "--store", store, "--keys", folder / "keys.json"))


if __name__ == "__main__":
    typer.run(main)
