"""Suite: a backbone and an adapter measured side by side, written as ``suite.json``."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from palette.errors import OutputError
from palette.files import read_json, write_json
from palette.fingerprints import fingerprint
from palette.suites.bench import Bench
from palette.suites.results import Measured
from palette.suites.running import measure
from palette.suites.schema import Suite

FORMAT = "palette-suite/1"
RESULT, ITEMS = Path("suite.json"), Path("items.json")
LIBRARIES = ("torch", "transformers", "safetensors", "numpy", "lm_eval", "datasets", "inspect_ai")


def run_suite(suite: Suite, bench: Bench) -> tuple[dict[str, Any], list[Measured]]:
    """The result of a suite, also written into the bench's folder, and what each measure found.

    ``items.json`` beside it holds the id, the hash and the label of every prompt on each side, no text.

    Raises:
        PaletteError: if lm-eval is needed and not installed.
        PromptError: if a file is missing or unreadable, or a measure has nothing to ask.
        OutputError: if the folder cannot be written.
    """
    found = measure(suite, bench)
    result = {
        "format": FORMAT,
        "name": suite.name,
        "model": {"name": bench.backbone.name, "fingerprint": bench.backbone.fingerprint},
        "adapter": bench.adapter.digest if bench.adapter else None,
        "authorised": list(bench.authorisation.domains),
        **sections(found),
        "provenance": provenance(suite, bench, found),
    }
    write_json(bench.folder / ITEMS, {one.name: [item.to_json() for item in one.items] for one in found})
    write_json(bench.folder / RESULT, result)
    return result, found


def sections(found: Sequence[Measured]) -> dict[str, Any]:
    """The sections ``suites`` and ``sources`` of ``palette-report/1`` that measures fill."""
    sources: dict[str, Any] = {}
    for one in found:
        if one.source is not None:
            sources.setdefault(one.source.digest, asdict(one.source))
    return {"suites": [one.to_json() for one in found], "sources": list(sources.values())}


def included(paths: Sequence[Path], measured: Mapping[str, str | None]) -> dict[str, Any]:
    """The sections ``suites`` and ``sources`` of a report out of suite results of what it measures.

    ``measured`` has the fingerprint of the ``backbone`` and the digest of the ``adapter``, None without
    one; what it leaves out is not compared.

    Raises:
        OutputError: if a file is missing, no suite's result, or one of another model or adapter.
    """
    suites: list[Any] = []
    sources: dict[str, Any] = {}
    for path in paths:
        held = read_json(path)
        if not isinstance(held, dict) or held.get("format") != FORMAT:
            raise OutputError(
                f"a suite's result must be a {FORMAT} file",
                got="another file",
                remedy="write one with palette suite",
                where=path,
            )
        stated = {"backbone": held["model"]["fingerprint"], "adapter": held["adapter"]}
        if other := [name for name, digest in measured.items() if stated[name] != digest]:
            raise OutputError(
                "a report includes suites of its own backbone and adapter",
                got=f"one of another {' and another '.join(other)}",
                remedy="measure it again with palette suite",
                where=path,
            )
        suites += held["suites"]
        sources |= {source["digest"]: source for source in held["sources"]}
    return {"suites": suites, "sources": list(sources.values())}


def provenance(suite: Suite, bench: Bench, found: Sequence[Measured]) -> dict[str, Any]:
    """By what the figures were made, and the commands by which lm-eval alone must find the same."""
    settings = suite.model_dump(mode="json", by_alias=True)
    return {
        "suite": settings,
        "fingerprint": fingerprint(settings),
        "judge": bench.judge.fingerprint,
        "floor": bench.authorisation.floor.digest,
        "device": str(bench.backbone.model.device),
        "dtype": str(bench.backbone.model.dtype).removeprefix("torch."),
        "versions": versions(),
        "commands": {one.name: one.command for one in found if one.command is not None},
    }


def versions() -> dict[str, str]:
    """The versions of Palette, Python, and the libraries that are installed."""
    held = {"palette": version("palette-llm"), "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            held[name] = version(name)
        except PackageNotFoundError:
            continue
    return held
