"""Activation patching: which parts carry refusal from prompt to prompt, and an adapter's change of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palette.authorisation import Role
from palette.backbones import greedy_replies
from palette.backbones.hook_points import ATTENTION, MLP
from palette.errors import PromptError
from palette.evaluation.patching import Patched, Patching, Prompted
from palette.files import write_json
from palette.processes import Progress, silent
from palette.prompts import Prompt
from palette.reporting.heat_maps import HeatMap, draw_heat_maps, scale
from palette.run import Run
from palette.search.space import Collected, read_collected
from palette.seeding import derive_seed
from palette.stages.load import Loaded, load, require_id

RESULT, PICTURE = Path("attribute") / "patching.json", Path("attribute") / "patching.svg"
FORMAT = "palette-patching/1"
PAIRS = 4
"""Pairs of prompts of a domain, kind and tier at most, where no ids are given."""
WAYS = ("denoising", "noising")

Pair = tuple[Prompt, Prompt]
"""A prompt that is to be refused, and the benign one that is patched with it."""


def patch(
    folder: Path | str, output: Path | str | None = None, ids: Sequence[str] = (), progress: Progress = silent
) -> dict[str, Any]:
    """What each part carries of the refusal score, by domain and kind, with its interval and a drawing.

    ``base`` and ``adapted`` patch between a restricted prompt and its benign one, without and with the
    adapter, ``change`` between the restricted prompt with and without the adapter: there the adapted run is
    the clean one. ``denoising`` puts parts of the clean run into the other, ``noising`` the other way round;
    1 is the whole difference. All runs are made to say the first tokens of the backbone's refusal.
    ``attribute/`` in the run's folder, or in ``output``, gets both files.

    Raises:
        OutputError: if the run has no report or nothing was collected, or the files cannot be written.
        BackboneError: if a part of a block cannot be patched.
        AdapterError: if the adapter is not the one that the report is of.
        PromptError: if an id is none of the run's, or there is no pair.
    """
    folder = Path(folder)
    loaded = load(folder, progress=progress)
    run, collected = loaded.run, read_collected(folder)
    pairs = paired(run, *_chosen(loaded, ids))
    patching = Patching(run.backbone, collected.refusal_ngrams)
    # First, since a model whose parts cannot be patched is refused there.
    parts = len(patching.components)
    runs = _runs(loaded, collected, pairs)
    measured: dict[str, dict[str, Patched]] = {}
    with progress("patching", len(pairs) * len(runs) * len(WAYS) * parts) as advance:
        for name, (clean_run, corrupted, last) in runs.items():
            sides = ((clean_run, corrupted), (corrupted, clean_run))
            measured[name] = {
                way: patching.patched(*side, last, advance) for way, side in zip(WAYS, sides, strict=True)
            }
    groups: dict[tuple[str, str], list[int]] = {}
    for number, (refused, _) in enumerate(pairs):
        kind: str = "floor" if run.authorisation.role(refused) is Role.FLOOR else refused.kind
        groups.setdefault((refused.domain, kind), []).append(number)
    domains: dict[str, dict[str, Any]] = {}
    for (domain, kind), rows in sorted(groups.items()):
        names = [[row.id for row in pairs[number]] for number in rows]
        found = {name: _told(ways, rows, run.seed) for name, ways in measured.items()}
        domains.setdefault(domain, {})[kind] = {"n": len(rows), "prompts": names, **found}
    result = {
        "format": FORMAT,
        "run": str(folder),
        "adapter": loaded.adapter.digest if loaded.adapter else None,
        "positions": run.backbone.post_instruction,
        "domains": domains,
    }
    there = Path(output or folder)
    write_json(there / RESULT, result)
    draw_shares(domains, there / PICTURE)
    return {**result, "file": str(there / RESULT), "picture": str(there / PICTURE)}


def _chosen(loaded: Loaded, ids: Sequence[str]) -> tuple[list[Prompt], list[Prompt]]:
    """The restricted prompts, and the benign ones among which theirs are found."""
    run = loaded.run
    split: Any = loaded.report.split
    rows = {row.id: row for row in run.prompts}
    for name in ids:
        require_id(run, rows, name)
    here = run.prompts.split(split)
    named = [rows[name] for name in dict.fromkeys(ids)]
    few = named or list(here.capped(run.recipe.at_most(PAIRS)))
    restricted = [row for row in few if row.kind == "restricted"]
    benign = [row for row in named if row.kind == "benign"] or [row for row in here if row.kind == "benign"]
    for kind, found in (("restricted", restricted), ("benign", benign)):
        if not found:
            raise PromptError(
                "patching needs a prompt that is to be refused and a benign one",
                got=f"no {kind} one " + ("among the ids" if named else f"in {split}"),
                remedy="name one with --ids",
                where=run.folder,
            )
    return restricted, benign


def paired(run: Run, restricted: Sequence[Prompt], benign: Sequence[Prompt]) -> list[Pair]:
    """Each restricted prompt with the benign one of its domain that has most tokens in common with it.

    It is none that another has, while there are such. A domain without benign prompts is given others'.
    """
    rows = [*restricted, *benign]
    words = {row.id: Counter(tokens) for row, tokens in zip(rows, run.render(rows), strict=True)}
    used: Counter[str] = Counter()
    pairs = []
    for row in restricted:
        own = [other for other in benign if other.domain == row.domain] or list(benign)

        def apart(other: Prompt, row: Prompt = row) -> tuple[int, float]:
            one, two = words[row.id], words[other.id]
            return used[other.id], -(one & two).total() / (one | two).total()

        nearest = min(own, key=apart)
        used[nearest.id] += 1
        pairs.append((row, nearest))
    return pairs


def _runs(
    loaded: Loaded, collected: Collected, pairs: Sequence[Pair]
) -> dict[str, tuple[Prompted, Prompted, int | None]]:
    """The comparisons by name: the clean run, the corrupted one, and at how many last positions they meet."""
    run, backbone, adapter = loaded.run, loaded.run.backbone, loaded.adapter
    refused, benign = (run.render([pair[place] for pair in pairs]) for place in (0, 1))
    told = max(run.recipe.floor_tokens, collected.floor_tokens)
    ngrams, end = collected.refusal_ngrams, backbone.stops[0]
    # The last token said is the first with which the backbone refuses: nothing of a floor prompt's content.
    replies = [
        tuple(reply[: (ngrams.place(reply) or 0) + 1]) or (end,)
        for reply in greedy_replies(backbone, refused, told)
    ]
    # Only there do both prompts have the same tokens, so that what differs is what parts have written.
    last = backbone.post_instruction
    base = Prompted(refused, replies)
    runs: dict[str, tuple[Prompted, Prompted, int | None]] = {"base": (base, Prompted(benign, replies), last)}
    if adapter:
        adapted = Prompted(refused, replies, adapter)
        runs["adapted"] = (adapted, Prompted(benign, replies, adapter), last)
        runs["change"] = (adapted, base, None)
    return runs


def _told(ways: Mapping[str, Patched], rows: Sequence[int], seed: int) -> dict[str, Any]:
    """What a comparison says of some pairs, as plain values."""
    clean_score, corrupted = ways["denoising"].mean(rows).values()
    drawn = derive_seed(seed, "patching")
    shares = {way: each.to_json(rows, drawn) for way, each in ways.items()}
    return {"clean": clean_score, "corrupted": corrupted, **shares, "most": _most(shares["denoising"])}


def _most(shares: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The attention or MLP that carries most; None where no share is told."""
    names = tuple(form.rpartition(".")[2] for form in (ATTENTION, MLP))
    told = [each for each in shares if each["share"] is not None and each["hook"].endswith(names)]
    return max(told, key=lambda each: each["share"], default=None)


def draw_shares(domains: dict[str, dict[str, Any]], path: Path) -> None:
    """Draws what each block's attention and MLP carry, a heat map for each comparison and way.

    Raises:
        OutputError: if the file cannot be written.
    """
    named = [(f"{domain} · {kind}", kinds[kind]) for domain, kinds in domains.items() for kind in kinds]
    names = [name for name in ("base", "adapted", "change") if name in named[0][1]]
    tables = [
        (f"{name}, {way}", np.array([_blocks(found[name][way]) for _, found in named], dtype=float))
        for way in WAYS
        for name in names
    ]
    most = max(scale(values) for _, values in tables)
    maps = [HeatMap(title, values, most) for title, values in tables]
    said = "share of the refusal score's difference"
    draw_heat_maps(maps, [label for label, _ in named], said, path, across=len(names))


def _blocks(shares: Sequence[dict[str, Any]]) -> list[float]:
    """The shares of each block's attention and MLP in the order in which they run, NaN where none is told."""
    by_hook = {each["hook"]: each["share"] for each in shares if each["head"] is None}
    layers = sum(name.endswith(".hook_resid_pre") for name in by_hook)
    hooks = (form.format(layer) for layer in range(layers) for form in (ATTENTION, MLP))
    return [np.nan if (share := by_hook.get(hook)) is None else share for hook in hooks]
