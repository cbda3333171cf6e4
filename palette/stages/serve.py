"""The serve verb: a store, certified adapters and a backend as one gateway; or the command of a vLLM."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from palette.authorisation import Role
from palette.certificates import Certificate
from palette.errors import GatewayError, OutputError, PaletteError
from palette.files import OWNER_ONLY, require_owner_only
from palette.gateway.admin import Desk
from palette.gateway.admission import Services
from palette.gateway.app import create_app
from palette.gateway.auditing import differences
from palette.gateway.backend import Backend
from palette.gateway.database import data_folder, store_url
from palette.gateway.identity import Credentials, Provider
from palette.gateway.limits import Limits
from palette.gateway.monitor import Lookalikes, learnt
from palette.gateway.recording import Heads
from palette.gateway.server import listening, origins_of
from palette.gateway.server import serve as run_server
from palette.gateway.store import Store
from palette.gateway.trusting import Catalogue, TrustingStore, certified, faults_of, renew, served, shelved
from palette.gateway.upstream import Upstream
from palette.gateway.watched import Watched
from palette.processes import device_named, silent
from palette.prompts.rows import Prompt, normalised_text
from palette.run import folder_of
from palette.signing import KeyRing, Purpose, read_key_ring, read_private
from palette.stages.load import run_of

METRICS_TOKEN, HEAD = "metrics.token", "ledger.head.json"


@dataclass(frozen=True)
class Trust:
    """Whom to believe: the store, the trusted keys, who signs the ledger, and what was revoked."""

    keys: Path
    store: str | None = None
    revoked: Path | None = None
    ledger_key: Path | None = None
    ledger_head: Path | None = None


@dataclass(frozen=True)
class Door:
    """How tenants come in: the address, the token for figures, the identity provider, and the limits."""

    host: str = "127.0.0.1"
    port: int = 8400
    exposed: bool = False
    metrics_token: Path | None = None
    provider: Provider | None = None
    limits: Limits = field(default_factory=Limits)
    limits_storage: str = "memory://"
    admin_origin: str | None = None


@dataclass(frozen=True)
class Model:
    """What answers: a backbone in this process, or the one that an upstream runs."""

    name: str
    dtype: str = "auto"
    device: str = "auto"
    upstream: Upstream | None = None


def serve(
    adapters: Sequence[Path | str],
    model: Model,
    trust: Trust,
    door: Door,
    ready: Callable[[dict[str, Any]], None],
) -> None:
    """Returns nothing, once it is told to stop; ``ready`` is told what is served, and where.

    Raises:
        AdapterError: if an adapter is missing, or not a plain LoRA.
        BackboneError: if there is no such model.
        GatewayError: if it cannot serve as it must.
        OutputError: if a file cannot be read or written.
        SignatureError: if a certificate does not hold, or a key is none.
        StoreError: if the store is missing, damaged or out of reach.
    """
    ring = Watched(trust.keys, read_key_ring)
    shelf = shelved(adapters, ring, trust.revoked)
    token = token_of(door.metrics_token or data_folder() / METRICS_TOKEN)
    prompts = prompts_of(adapters)
    with listening(door.host, door.port, exposed=door.exposed) as listener, _store(trust, ring) as store:
        require_told(store)
        backend = backend_of(model, store.keyed("cache salt"))
        with store.writer(heads_of(trust)) as recorder:
            authority = TrustingStore(store, ring, trust.revoked)
            catalogue = Catalogue([served(each) for each in shelf.taken], ring)
            services = Services(
                authority,
                recorder,
                Credentials(authority, door.provider),
                catalogue,
                backend,
                store.keyed,
                door.limits,
                limits_storage=door.limits_storage,
                renew=partial(renew, shelf, backend, catalogue),
                faults=lambda: [*shelf.faults, *authority.faults, *faults_of(door.provider)],
                lookalikes=lookalikes_of(prompts),
            )
            origins = origins_of(door.admin_origin, listener)
            desk = Desk(store, lambda: shelf.taken, origins, floor_of(prompts))
            gateway = create_app(services, token, desk)
            told = partial(_told, shelf.taken, backend, ready)
            asyncio.run(run_server(gateway, listener, told))


def vllm_command(adapters: Sequence[Path | str], model: Model, trust: Trust, folder: Path) -> dict[str, Any]:
    """The command that serves these adapters with vLLM; the bytes that were verified are written for it.

    Raises:
        AdapterError: if an adapter is missing, or not a plain LoRA.
        GatewayError: if vLLM cannot serve one.
        OutputError: if the disk cannot take them.
        SignatureError: if a certificate does not hold.
    """
    from palette.gateway.vllm import line

    certificates = certified(adapters, read_key_ring(trust.keys), trust.revoked)
    command = line(str(folder_of(model.name)), [served(each) for each in certificates], folder)
    return {"command": command, "adapters": sorted(each.certified.adapter for each in certificates)}


def backend_of(model: Model, key: str) -> Backend:
    """What answers; the model is loaded here, if it is in this process.

    Raises:
        BackboneError: if there is no such model.
    """
    from palette.models import identify

    folder = folder_of(model.name)
    if model.upstream is not None:
        from palette.gateway.remote import Remote

        return Remote(identify(folder), model.upstream, key.encode())
    from palette.backbones.loading import load_backbone
    from palette.gateway.embedded import Embedded

    device = device_named(model.device)
    return Embedded(load_backbone(folder, model.name, dtype=model.dtype, device=device))


def require_told(store: Store) -> None:
    """Returns nothing: the store says what its ledger says, so that no revocation was taken out of it.

    Raises:
        GatewayError: if it does not.
        StoreError: if it cannot be read.
    """
    if wrong := differences(store):
        raise GatewayError(
            "a store must say what its ledger says before it is served",
            got=f"{len(wrong)} differences, the first: {wrong[0]}",
            remedy="palette ledger verify tells all of them; mend the store, or restore it",
        )


def prompts_of(adapters: Sequence[Path | str]) -> dict[Prompt, bool]:
    """The prompts in words of adapters' runs, and which are of the floor; none where one has no run."""
    found: dict[Prompt, bool] = {}
    for each in adapters:
        try:
            run = run_of(Path(each), silent)[1]
            for row in run.prompts:
                if row.cell != "picture":
                    found[row] = found.get(row, False) or run.authorisation.role(row) is Role.FLOOR
        except PaletteError:
            return {}
    return found


def floor_of(prompts: Mapping[Prompt, bool]) -> Callable[[str], bool] | None:
    """Whether a text holds a prompt of the floor; None where there is none."""
    held = {normalised_text(row.request) for row, floor in prompts.items() if floor}
    words = sorted(each for each in held if each)
    if not words:
        return None

    def holds(text: str) -> bool:
        said = normalised_text(text)
        return any(each in said for each in words)

    return holds


def lookalikes_of(prompts: Mapping[Prompt, bool]) -> Lookalikes | None:
    """Whether a request looks like one of the floor; None where too little is known to tell."""
    known = [row for row in prompts if row.split == "train"]
    return learnt(
        [row.request for row in known if prompts[row]],
        [row.request for row in known if not prompts[row]],
        [row.request for row, floor in prompts.items() if not floor and row.split == "validation"],
    )


def heads_of(trust: Trust) -> Heads | None:
    """How the ledger's ends are signed; None where no key is given.

    Raises:
        OutputError: if the key's file is missing.
        SignatureError: if it is no key of ledgers.
    """
    if trust.ledger_key is None:
        return None
    key = read_private(trust.ledger_key, Purpose.LEDGER)
    return Heads(key, trust.ledger_head or trust.ledger_key.with_name(HEAD))


def token_of(path: Path) -> str:
    """The secret in a file that its owner alone can read; it is made where there is none.

    Raises:
        OutputError: if it cannot be read or written, or others can read it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "w") as stream:
                stream.write(secrets.token_urlsafe(32))
        except FileExistsError:
            pass
        mode, text = path.stat().st_mode, path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        got = error.strerror if isinstance(error, OSError) else "another file"
        raise OutputError("a token's file must be readable", got=got, where=path) from None
    require_owner_only("a token", path, mode)
    if len(text) < 16:
        raise OutputError("a token must have at least 16 characters", got=len(text), where=path)
    return text


def _store(trust: Trust, ring: Watched[KeyRing]) -> Store:
    return Store(store_url(trust.store), ring())


def _told(
    certificates: Sequence[Certificate],
    backend: Backend,
    ready: Callable[[dict[str, Any]], None],
    address: str,
) -> None:
    fitting = [each for each in certificates if each.certified.backbone == backend.backbone]
    ready(
        {
            "address": address,
            "backbone": backend.backbone,
            "process": os.getpid(),
            "authorisations": sorted("+".join(sorted(each.certified.domains)) for each in fitting),
            "certificates": sorted(each.id for each in fitting),
            "of_another_backbone": sorted(each.id for each in certificates if each not in fitting),
        }
    )
