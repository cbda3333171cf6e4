"""What is wrong with an adapter or worth knowing of it, and of a model, as SARIF 2.1.0 (OASIS).

Scanners write this format, and the forges where code lies show it. Each rule is a law; a result says who
breaks it. What an adapter holds is given by the digest of its ΔW, its file by that of its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from palette.adapters.files import adapter_paths
from palette.adapters.header import read_header
from palette.adapters.layouts import WEIGHT
from palette.adapters.lora import Adapter
from palette.adapters.mounting import require_fit
from palette.adapters.names import unwrapped
from palette.backbones.loading import without_weights
from palette.errors import AdapterError, PaletteError
from palette.files import write_json
from palette.fingerprints import fingerprint_file
from palette.models import display_name, variant_of
from palette.run import folder_of

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ERROR, WARNING, NOTE = "error", "warning", "note"
RULES = {
    "unreadable": (ERROR, "An adapter must be plain LoRA that can be read whole."),
    "outside-backbone": (ERROR, "Every module that is adapted must be one of the backbone's, of its shape."),
    "untargeted": (ERROR, "target_modules must name every module that has factors; PEFT drops the others."),
    "gate-failed": (ERROR, "The report beside an adapter must say that its gate passed."),
    "writers-unknown": (ERROR, "It must be known what writes to a model's residual stream."),
    "backbone-unnamed": (WARNING, "An adapter must say which backbone it was made for."),
    "backbones-differ": (WARNING, "Adapters that are used together must be of one backbone."),
    "null": (WARNING, "ΔW must not be zero in any module."),
    "targets-absent": (WARNING, "Every name in target_modules must have factors."),
    "backbone-unproven": (NOTE, "A fingerprint proves which backbone an adapter was made for."),
    "backbone-elsewhere": (NOTE, "Where the backbone is at hand, modules are compared with its own."),
    "scales-differ": (NOTE, "Servers that know no alpha_pattern give all modules one scale."),
    "unmeasured": (NOTE, "A report beside an adapter says what it changes."),
    "wrapped-names": (NOTE, "Names need not tell what wrapped the model; they are read without it."),
    "out-of-reach": (NOTE, "An adapter changes only matrices in the blocks."),
    "no-writer": (NOTE, "What is as wide as the stream may not write to it."),
}
"""Each rule's level and its law, by its id."""


@dataclass(frozen=True)
class Finding:
    """One result: the rule, where, what was found, the modules that it concerns, and whose digest."""

    rule: str
    path: Path
    message: str
    modules: Sequence[str] = ()
    digest: str | None = None

    def to_json(self) -> dict[str, str]:
        """What a reader is told, with how grave it is."""
        level, _ = RULES[self.rule]
        return {"level": level, "rule": self.rule, "path": str(self.path), "message": self.message}


def adapter_findings(path: Path, adapter: Adapter, said: Mapping[str, Any]) -> Iterator[Finding]:
    """What is found of an adapter, of which ``inspect`` has ``said`` what it is."""
    stored = read_header(adapter_paths(path)[0]).entries
    for rule, message, modules in (*_of_names(stored, adapter), *_of_backbone(adapter), *_of_delta(said)):
        yield Finding(rule, path, message, modules, adapter.digest)


Told = Iterator[tuple[str, str, Sequence[str]]]
"""A rule, what was found, and the modules that it concerns."""


def _of_names(stored: Iterable[str], adapter: Adapter) -> Told:
    """What is found of the tensors' names, and of those that PEFT is told."""
    if wrapped := sorted(key for key in stored if unwrapped(key) != key):
        yield "wrapped-names", f"{len(wrapped)} names tell what wrapped the model, {wrapped[0]} first.", ()
    # Fused parameters are named in another field, without which they are not read.
    parts = {name: name.split(".") for name in adapter.modules if not name.endswith(("]", WEIGHT))}
    ends = {name: {".".join(each[i:]) for i in range(len(each))} for name, each in parts.items()}
    lost = [name for name in ends if adapter.targets and not ends[name] & adapter.targets]
    if lost:
        yield "untargeted", f"PEFT drops {len(lost)} modules, {lost[0]} first.", lost
    if absent := sorted(adapter.targets.difference(*ends.values())):
        yield "targets-absent", f"No factors are there for {', '.join(absent[:8])}.", ()


def _of_backbone(adapter: Adapter) -> Told:
    """What is found of the backbone that an adapter names; no model is fetched or loaded for it."""
    name = adapter.backbone.name
    if name is None:
        yield "backbone-unnamed", "It names none.", ()
        return
    # Logs are passed on; where somebody keeps models is not.
    shown = display_name(name)
    if adapter.backbone.fingerprint is None:
        yield "backbone-unproven", f"It names {shown} and has no fingerprint of it.", ()
    try:
        model = without_weights(folder_of(name)) if Path(name).is_dir() or variant_of(name) else None
        if model is None:
            yield "backbone-elsewhere", f"{shown} is not at hand, so its modules were not looked at.", ()
        else:
            require_fit(model, adapter)
    except AdapterError as error:
        yield "outside-backbone", f"{error}.", ()
    except PaletteError as error:
        yield "backbone-elsewhere", f"{error}.", ()


def _of_delta(said: Mapping[str, Any]) -> Told:
    """What is found of ΔW, and of the gate that it was put to."""
    if len(scales := said["scales"]) > 1:
        yield "scales-differ", f"alpha / rank lies between {scales[0]:g} and {scales[-1]:g}.", ()
    if null := [name for name, module in said["modules"].items() if not module["norm"]]:
        yield "null", f"ΔW is zero in {len(null)} of {len(said['modules'])} modules.", null
    if said["certificate"] is None:
        yield "unmeasured", "No report of this adapter lies beside it.", ()
    elif not said["certificate"]["passed"]:
        yield "gate-failed", "The gate of this adapter failed.", ()


def model_findings(said: Mapping[str, Any]) -> Iterator[Finding]:
    """What is found of a model, of which ``inspect`` has ``said`` what it is made of."""
    path, of = Path(said["model"]), said["fingerprint"]
    if reason := said["writers_unknown"]:
        yield Finding("writers-unknown", path, f"{reason}.", (), of)
    for kind in said["kinds"]:
        for name, reason in kind["skipped"].items():
            yield Finding("no-writer", path, f"{name} of blocks {kind['blocks']}: {reason}.", [name], of)
    if (share := 1 - said["adapted"]["of_blocks"]) > 0:
        yield Finding(
            "out-of-reach", path, f"No adapter changes {share:.2%} of the blocks' parameters.", (), of
        )


def write_sarif(path: Path, findings: Iterable[Finding], paths: Iterable[Path]) -> None:
    """Writes what was found in a model or in adapters at these paths.

    Raises:
        OutputError: if the file cannot be written.
    """
    places = list(dict.fromkeys(paths))
    rules = [
        {"id": rule, "shortDescription": {"text": law}, "defaultConfiguration": {"level": level}}
        for rule, (level, law) in RULES.items()
    ]
    driver = {"name": "palette", "version": version("palette-llm"), "rules": rules}
    results = [_result(one, list(RULES).index(one.rule), places.index(one.path)) for one in findings]
    artifacts = [_artifact(place) for place in places]
    run = {"tool": {"driver": driver}, "artifacts": artifacts, "results": results}
    content = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    write_json(path, content, "name another file with --sarif")


def _result(one: Finding, rule: int, place: int) -> dict[str, Any]:
    where: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": _uri(one.path), "index": place}}
    }
    if one.modules:
        where["logicalLocations"] = [{"fullyQualifiedName": name, "kind": "module"} for name in one.modules]
    return {
        "ruleId": one.rule,
        "ruleIndex": rule,
        "level": RULES[one.rule][0],
        "message": {"text": one.message},
        "locations": [where],
        **({"partialFingerprints": {"paletteDigest/v1": one.digest}} if one.digest else {}),
    }


def _artifact(path: Path) -> dict[str, Any]:
    """A file or folder, with the digest of its weights' bytes if it is an adapter."""
    try:
        digest = fingerprint_file(adapter_paths(path)[0])
    except (AdapterError, OSError):
        return {"location": {"uri": _uri(path)}}
    return {"location": {"uri": _uri(path)}, "hashes": {"sha-256": digest}}


def _uri(path: Path) -> str:
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
