"""Suite: a backbone and an adapter measured side by side, written as ``suite.json``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from palette.adapters.files import read_adapter
from palette.files import claim, require_free, spooled, write_json
from palette.fingerprints import fingerprint, versions
from palette.processes import Progress, silent
from palette.suites.measures import check, measured
from palette.suites.run import SUITE_FORMAT, MeasureResult, SuiteRun, require_extra
from palette.suites.schema import load_suite
from palette.working import working

RESULT, ITEMS = Path("suite.json"), Path("items.json")
LIBRARIES = ("torch", "transformers", "safetensors", "numpy", "lm_eval", "datasets", "inspect_ai")


@dataclass(frozen=True)
class Places:
    """Where a suite's files lie, and where its results go."""

    data: Path | None = None
    """The folder beneath which the suite's files lie (default: beside the suite)."""
    output: Path | None = None
    """The output folder (default: runs/<suite name>)."""
    inspect_log: Path | None = None
    """The folder of inspect-ai's logs, if the suite is to be run there too."""
    texts: bool = False
    """Whether those logs hold the texts of benign prompts and their replies."""


def suite(
    path: Path | str,
    model: str,
    adapter: Path | str | None = None,
    places: Places = Places(),
    overrides: Iterable[str] = (),
    progress: Progress = silent,
) -> tuple[dict[str, Any], Path]:
    """The result of a suite on a model, with an adapter on as well if one is given, and its folder.

    ``items.json`` beside it holds the id, the hash and the label of every prompt on each side, no text.

    Raises:
        PaletteError: if the suite, the data, the model, the adapter or the folder break a law, or an
            extra is needed that is not installed.
    """
    path = Path(path)
    whole = load_suite(path, [f"model={model}", *overrides])
    if places.inspect_log is not None:
        require_extra("inspect_ai")
    mounted = None if adapter is None else read_adapter(Path(adapter))
    folder = places.output or Path("runs") / whole.name
    run = SuiteRun(whole, folder, progress, mounted, places.data or path.parent)
    _ = run.authorisation
    if mounted is not None:
        run.require_backbone(mounted)
    check(run)
    owner = {"suite": whole.name}
    require_free(folder, owner)
    if places.inspect_log is not None:
        # Told now, and not once all is measured.
        with spooled(places.inspect_log / "log", "name another folder with --inspect-log"):
            pass
    with working(folder):
        _ = run.backbone
        claim(folder, owner)
        return _measured(run, places), folder


def _measured(run: SuiteRun, places: Places) -> dict[str, Any]:
    """The result of a suite, which is written into the run's folder."""
    folder, whole, mounted = run.folder, run.recipe, run.adapter
    results = measured(run)
    sources: dict[str, Any] = {}
    for origin in (each.source for each in results if each.source is not None):
        sources.setdefault(origin.digest, asdict(origin))
    result = {
        "format": SUITE_FORMAT,
        "name": whole.name,
        "model": {"name": run.backbone.name, "fingerprint": run.backbone.fingerprint},
        "adapter": mounted.digest if mounted else None,
        "authorised": list(run.authorisation.domains),
        "suites": [each.to_json() for each in results],
        "sources": list(sources.values()),
        "provenance": provenance(run, results),
    }
    write_json(folder / ITEMS, {each.name: [item.to_json() for item in each.items] for each in results})
    write_json(folder / RESULT, result)
    if places.inspect_log is not None:
        from palette.suites.inspection import export

        result |= {"inspect": export(whole.name, run, results, places.inspect_log, places.texts)}
    return result


def provenance(run: SuiteRun, results: Sequence[MeasureResult]) -> dict[str, Any]:
    """By what the figures were made, and the commands by which lm-eval alone must find the same."""
    settings = run.recipe.model_dump(mode="json", by_alias=True)
    return {
        "suite": settings,
        "fingerprint": fingerprint(settings),
        "judge": run.judge.fingerprint,
        "floor": run.authorisation.floor.digest,
        "device": str(run.backbone.model.device),
        "dtype": str(run.backbone.model.dtype).removeprefix("torch."),
        "versions": versions(LIBRARIES),
        "commands": {each.name: each.command for each in results if each.command is not None},
    }
