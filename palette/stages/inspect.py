"""The inspect verb: what adapter files hold, how far their deltas interfere, and what a model is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from palette.adapters import factorisation
from palette.adapters.configuration import CONFIG
from palette.adapters.factorisation import effective_rank, spectrum_of_factors
from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter, cosine, norm, shared_modules
from palette.adapters.names import last_name
from palette.errors import AdapterError, RecipeError, together
from palette.files import read_json
from palette.merging.inputs import MergeInput, brought_together
from palette.models import GGUF, PACKAGE, weight_files
from palette.reporting.heat_maps import draw_interference
from palette.reporting.sarif import Finding, adapter_findings, model_findings, write_sarif
from palette.run import folder_of


class PairMeasure(NamedTuple):
    """What is measured between two adapters, row against column, its title, and its smallest value."""

    between: Callable[[Adapter, Adapter], float]
    title: str
    low: float = 0.0


MEASURES = {
    "cosines": PairMeasure(cosine, "cosine of ΔW", -1.0),
    "overlaps": PairMeasure(factorisation.overlap, "shared inputs"),
    "sign_conflicts": PairMeasure(factorisation.sign_conflict, "sign conflict"),
    "dominances": PairMeasure(factorisation.dominance, "row's share of the energy"),
}
"""The largest value of each is 1."""


def inspect(
    paths: Sequence[Path | str] | Path | str,
    picture: Path | str | None = None,
    sarif: Path | str | None = None,
) -> dict[str, Any]:
    """What each adapter is, and for several how much their ΔW interfere, drawn in ``picture``.

    Of one path that is a model's, a folder, a GGUF file or a name as in a recipe, what ``anatomy`` says.

    That is the cosines in [-1, 1] between them, what one repeats or undoes of the other; the overlaps
    in [0, 1] of what they read, 0 where no input moves both; the sign conflicts in [0, 1], the share
    of what both move that they push apart; and the dominances in [0, 1], the row's share of the energy
    of both. All are null for two adapters that were made for different backbones, since their deltas
    live in different spaces. ``findings``, where ``sarif`` names a file for them, are the laws that are
    broken and what is worth knowing; those of adapters that cannot be read stand in the file alone.

    Raises:
        RecipeError: if no adapter is given, or a picture of fewer than two.
        AdapterError: if an adapter cannot be read.
        OutputError: if the picture or the file cannot be written.
    """
    files = [Path(each) for each in ([paths] if isinstance(paths, Path | str) else paths)]
    if not files:
        raise RecipeError("inspect must have at least one adapter", got="none")
    if len(files) == 1 and picture is None and is_model(str(files[0])):
        result = anatomy(str(files[0]))
        return _noted(result, model_findings(result), files, sarif)
    adapters, findings, errors = [], [], []
    for path in files:
        try:
            adapters.append(read_adapter(path))
        except AdapterError as error:
            errors.append(error)
            findings.append(Finding("unreadable", path, f"{error}."))
    if errors:
        _noted({}, findings, files, sarif)
        raise together(errors)
    result = {"adapters": [describe(path, adapter) for path, adapter in zip(files, adapters, strict=True)]}
    if len(adapters) > 1:
        pairs = [[comparable(one, other) for other in adapters] for one in adapters]
        for name, measure in MEASURES.items():
            result[name] = [[measure.between(*pair) if pair else None for pair in row] for row in pairs]
    if picture is not None:
        titled = [(result.get(name), measure.title, measure.low) for name, measure in MEASURES.items()]
        labels = [", ".join(one["domains"]) or Path(one["path"]).stem for one in result["adapters"]]
        draw_interference(titled, labels, Path(picture))
    found = zip(files, adapters, result["adapters"], strict=True)
    findings = [one for each in found for one in adapter_findings(*each)]
    strangers = [index for index, cell in enumerate(result.get("cosines", [[]])[0]) if cell is None]
    differ = f"It is of another backbone than {files[0]}."
    findings += [Finding("backbones-differ", files[i], differ, (), adapters[i].digest) for i in strangers]
    return _noted(result, findings, files, sarif)


def _noted(
    result: dict[str, Any], findings: Iterable[Finding], files: Sequence[Path], sarif: Path | str | None
) -> dict[str, Any]:
    """The result with what was found, which is written too; without either where nobody asked."""
    if sarif is None:
        return result
    findings = list(findings)
    write_sarif(Path(sarif), findings, files)
    return {**result, "findings": [one.to_json() for one in findings]}


def is_model(name: str) -> bool:
    """Whether a name is a model's, going by the files there are; what is not there may be the hub's."""
    path = Path(name).expanduser()
    if path.is_dir():
        held = (path / "config.json").is_file() or bool(list(path.glob("*.gguf")))
        return held and not (path / CONFIG).is_file()
    named = name.partition("/")[0] == "organism" or name.startswith(PACKAGE) or path.suffix.lower() == GGUF
    return named or (not path.exists() and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None)


def anatomy(name: str) -> dict[str, Any]:
    """What a model is made of that is named as in a recipe: its blocks, what writes to the stream, and more.

    ``kinds`` are the blocks that are built alike, each with a drawing; ``adapted`` the shares in [0, 1] of
    the parameters that lie in matrices which an adapter changes.

    Raises:
        BackboneError: if there is no such model, or it is none that Palette can use.
    """
    from palette.backbones import load_backbone
    from palette.backbones.anatomy import cache_facts, kinds, template_facts
    from palette.backbones.placement import number_format, numbers_in
    from palette.internalise.lora import lora_layers

    folder = folder_of(name)
    backbone = load_backbone(folder, name, dtype="auto")
    found, unknown = kinds(backbone)
    model: Any = backbone.model
    layers = lora_layers(backbone, range(backbone.layers))
    # A linear's name, or that of a parameter of fused experts.
    numbers = {name.removesuffix(".weight"): numbers_in(each) for name, each in model.named_parameters()}
    held = sum(numbers[layer.removesuffix(".weight")] for layer in layers)
    inside = sum(numbers_in(each) for block in backbone.blocks for each in block.parameters())
    every = sum(numbers_in(each) for each in model.parameters())
    head, embedded = model.get_output_embeddings(), model.get_input_embeddings()
    return {
        "model": name,
        "fingerprint": backbone.fingerprint,
        "architecture": type(model).__name__,
        "blocks": backbone.layers,
        "width": backbone.width,
        "parameters": every,
        "numbers": number_format(model).removeprefix("torch."),
        "weights": [path.name for path in weight_files(folder)],
        "kinds": [kind.to_json() for kind in found],
        "writers_unknown": unknown,
        "tied": head is not None and head.weight is embedded.weight,
        "adapted": {"modules": len(layers), "of_blocks": held / inside, "of_model": held / every},
        "cache": cache_facts(backbone),
        "template": template_facts(backbone),
    }


def comparable(one: Adapter, other: Adapter) -> tuple[Adapter, Adapter] | None:
    """Two adapters by the same names, if they were made for one backbone, as far as they say."""
    if not one.backbone.agrees(other.backbone):
        return None
    try:
        members = brought_together([MergeInput(one), MergeInput(other)])
    except AdapterError:
        return None
    first, second = (
        replace(each, modules=member.modules) for each, member in zip((one, other), members, strict=True)
    )
    shared = shared_modules(first, second)
    fits = all(first.modules[name].shape == second.modules[name].shape for name in shared)
    return (first, second) if fits else None


def describe(path: Path, adapter: Adapter) -> dict[str, Any]:
    """One adapter as JSON; a norm is the Frobenius norm of ΔW."""
    modules = {name: adapter.modules[name] for name in sorted(adapter.modules)}
    spectra = {name: spectrum_of_factors(module) for name, module in modules.items()}
    return {
        "path": str(path),
        "digest": adapter.digest,
        "backbone": {"name": adapter.backbone.name, "fingerprint": adapter.backbone.fingerprint},
        "domains": list(adapter.domains),
        "method": adapter.card.get("method"),
        "parents": adapter.card.get("parents", []),
        "certificate": certificate(path, adapter),
        "targets": sorted(set(map(last_name, modules))),
        "rank": adapter.rank,
        "scales": sorted({module.scale for module in modules.values()}),
        "norm": norm(adapter),
        "modules": {
            name: {
                "shape": list(module.shape),
                "rank": module.rank,
                "exact_rank": spectra[name].rank,
                "effective_rank": effective_rank(spectra[name]),
                "scale": module.scale,
                "norm": module.norm(),
            }
            for name, module in modules.items()
        },
        "card": dict(adapter.card),
    }


def certificate(path: Path, adapter: Adapter) -> dict[str, Any] | None:
    """What the report beside the adapter says of the gate; nothing if there is none, or it is of another."""
    beside = (path if path.is_dir() else path.parent) / "report.json"
    report = read_json(beside) if beside.is_file() else None
    if report is None or report["provenance"].get("adapter") != adapter.digest:
        return None
    return {"passed": report["gate"]["passed"], "authorised": report["authorised"], "report": str(beside)}
