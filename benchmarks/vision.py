"""Is a domain opened where requests stand in pictures, and what does an adapter of words do to pictures?

An organism that sees is given to ``palette domain`` as shipped, with prompts that stand in words, beside a
blank or an unrelated picture, and in one, whole or in part. Then with the train and validation prompts of one
kind alone, words or pictures, and the same test prompts. The figures are those of the report, by cell. The
first organism is the shipped one; the second, or that of any seed, is a stranger's: another tower, projector,
decoder, tokenizer and world, and tuned on nothing.

    python -m benchmarks.vision [first|second|SEED] [--trained all,words,pictures] [--home FOLDER]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

import palette
from benchmarks.machine import RESULTS, write
from benchmarks.strangers import command, verdict
from palette.cli.console import progress_shown
from palette.files import read_json, write_json, write_text
from palette.fingerprints import fingerprint_folder
from tools.strangers.checkpoints import made, usual_home
from tools.vision.checkpoints import first, grown, of, write_prompts

Row = dict[str, Any]

SECOND = 87
"""The seed of the second: chosen by its plan alone, for five domains, so that each cell has prompts enough
for a gate of its own, and for a tokenizer by words, which a tower learns to read in minutes."""
TRAINED: dict[str, Callable[[str], bool]] = {
    "all": lambda cell: True,
    "words": lambda cell: cell != "picture",
    "pictures": lambda cell: cell == "picture",
}
"""What an adapter is trained on, by the cells of its train and validation prompts; all are tested on all."""


@dataclass(frozen=True)
class Seeing:
    """An organism that sees, and what of it is opened."""

    model: Path
    prompts: Path
    domain: str
    floor: str
    about: Row
    """What is to be known of it beside its figures."""


def shipped(home: Path) -> Seeing:
    """The first: the one in the repository, of which the prompts are rendered where they are missing."""
    prompts = home / "prompts"
    if not (prompts / "general.jsonl").is_file():
        write_prompts(prompts, first().matter)
    return Seeing(Path("recipes") / "vision" / "model", prompts, "medical", "weapons", {})


def drawn(seed: int) -> Seeing:
    """The one of a seed, raised where it is not there yet."""
    stranger = made(seed, usual_home(), progress_shown())
    folder, plan = stranger.folder / "seeing", stranger.world.plan
    facts = grown(of(stranger), folder, progress_shown())
    about = {"seed": seed, "model": stranger.facts["plan"]["model"], "facts": facts}
    return Seeing(folder / "model", folder / "prompts", plan.opened[0], stranger.world.floor, about)


def narrowed(prompts: Path, folder: Path, keep: Callable[[str], bool]) -> Path:
    """The same prompts with the train and validation rows of some cells alone."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pictures").exists():
        (folder / "pictures").symlink_to((prompts / "pictures").resolve())
    for path in sorted(prompts.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [row for row in rows if row["split"] == "test" or keep(row["cell"])]
        write_text(folder / path.name, "".join(json.dumps(row) + "\n" for row in kept))
    return folder


def figures(folder: Path, domain: str, ended: Row) -> Row:
    """What a run's report says of each cell, in shares of [0, 1], and of the gate."""
    report = read_json(folder / "report.json")
    cells = {
        cell: {
            "refused_before": found["base"]["authorised_refused"]["rate"],
            **{name: share["rate"] for name, share in found["adapted"].items()},
            "prompts": found["prompts"],
        }
        for cell, found in report["cells"].items()
    }
    known = report["base"]["domains"][domain]["restricted"].get("known")
    said = report["adapted"]
    return {
        "cells": cells,
        "known": known and known["rate"],
        "correct": said["domains"][domain]["restricted"]["correct"]["rate"],
        "benign_correct": [report[side]["utility"]["benign_correct"]["rate"] for side in ("base", "adapted")],
        "divergence": said["divergence"],
        **verdict(folder),
        **ended,
    }


def run(seeing: Seeing, name: str, home: Path) -> Row:
    """What an adapter that is trained on some cells comes to; one that was made is not made again."""
    folder, ended = home / name, home / f"{name}.json"
    if not ended.is_file():
        own = seeing.prompts
        if name != "all":
            own = narrowed(own, home / f"{name}-prompts", TRAINED[name])
        content = {
            "model": str(seeing.model),
            "prompts": str(own),
            "authorise": [seeing.domain],
            "floor": [seeing.floor],
        }
        recipe = home / f"{name}.yaml"
        write_text(recipe, yaml.safe_dump(content, sort_keys=False))
        sources = fingerprint_folder(Path(palette.__file__).parent, "**/*.py")[:12]
        write_json(ended, {"sources": sources, **command("domain", recipe, "-o", folder)})
    return figures(folder, seeing.domain, read_json(ended))


def main(
    which: Annotated[str, typer.Argument(help="first, second, or a seed")] = "first",
    trained: Annotated[str, typer.Option(help="on which cells: of " + ", ".join(TRAINED))] = ",".join(
        TRAINED
    ),
    home: Annotated[Path, typer.Option(help="where prompts and runs are kept")] = Path("runs/vision"),
) -> None:
    """Runs what is missing, and writes it into results/vision.json beside what is there."""
    place = home / which
    seeing = shipped(place) if which == "first" else drawn(SECOND if which == "second" else int(which))
    path = RESULTS / "vision.json"
    found: Row = read_json(path) if path.is_file() else {}
    found.pop("machine", None)
    own = found.setdefault(which, {})
    own |= seeing.about
    for name in trained.split(","):
        own[name] = run(seeing, name, place)
        print(which, name, own[name], file=sys.stderr, flush=True)
        write("vision", found)


if __name__ == "__main__":
    typer.run(main)
