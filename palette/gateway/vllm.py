"""The command that serves certified adapters with vLLM, and the folders that it names."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from palette.adapters.writing import CONFIG, SERVED_RANKS
from palette.errors import GatewayError
from palette.files import read_json
from palette.gateway.backend import Served


def written(certificates: Iterable[Served], folder: Path) -> dict[str, Path]:
    """The folders of adapters by their digests, each written from the bytes that were verified.

    Raises:
        OutputError: if the disk cannot take them.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = {}
    for each in certificates:
        place = folder / each.facts.adapter
        # Always anew: what lies there may be something else.
        each.write(place)
        found[each.facts.adapter] = place
    return found


def command(model: str, adapters: dict[str, Path], port: int = 8000) -> str:
    """The command line that serves a model with adapters named by their digests, on this machine alone.

    One adapter a request is vLLM's own law; run-time loading is off, and no cache lies outside the server.

    Raises:
        GatewayError: if there is no adapter, or one has a larger rank than vLLM serves.
    """
    if not adapters:
        raise GatewayError("a server needs a certified adapter", got="none")
    ranks = [int(read_json(path / CONFIG)["r"]) for path in adapters.values()]
    fitting = [rank for rank in SERVED_RANKS if rank >= max(ranks)]
    if not fitting:
        raise GatewayError(f"vLLM serves ranks up to {max(SERVED_RANKS)}", got=max(ranks))
    modules = [
        json.dumps({"name": digest, "path": str(path)}, separators=(",", ":"))
        for digest, path in sorted(adapters.items())
    ]
    words = ["vllm", "serve", model, "--host", "127.0.0.1", "--port", str(port)]
    words += ["--enable-lora", "--max-loras", "1", "--max-lora-rank", str(min(fitting))]
    words += ["--lora-modules", *modules]
    environment = ["VLLM_ALLOW_RUNTIME_LORA_UPDATING=False", "VLLM_SERVER_DEV_MODE=0", "HF_HUB_OFFLINE=1"]
    return " ".join([*environment, shlex.join(words)])


def line(model: str, certificates: Sequence[Served], folder: Path, port: int = 8000) -> str:
    """The command for these certificates, once their adapters are written."""
    return command(model, written(certificates, folder), port)
