"""Is a domain opened where requests stand in pictures, and what does an adapter of words do to pictures?

The organism that sees is given to ``palette domain`` with the shipped recipe, whose prompts stand in words,
beside a blank or an unrelated picture, and in one, whole or in part. Then with the train and validation
prompts of one kind alone, words or pictures, and the same test prompts. The figures are those of the report,
by cell.

    python -m benchmarks.vision [FOLDER]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from benchmarks.machine import write
from benchmarks.strangers import command, verdict
from palette.files import read_json, write_json, write_text
from tools.vision.checkpoints import write_prompts

Row = dict[str, Any]

MODEL = Path("recipes") / "vision" / "model"
TRAINED: dict[str, Callable[[str], bool]] = {
    "all": lambda cell: True,
    "words": lambda cell: cell != "picture",
    "pictures": lambda cell: cell == "picture",
}
"""What an adapter is trained on, by the cells of its train and validation prompts; all are tested on all."""


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


def figures(folder: Path, ended: Row) -> Row:
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
    known = report["base"]["domains"]["medical"]["restricted"].get("known")
    said = report["adapted"]
    return {
        "cells": cells,
        "known": known and known["rate"],
        "correct": said["domains"]["medical"]["restricted"]["correct"]["rate"],
        "benign_correct": [report[side]["utility"]["benign_correct"]["rate"] for side in ("base", "adapted")],
        "divergence": said["divergence"],
        **verdict(folder),
        **ended,
    }


def main(
    home: Annotated[Path, typer.Argument(help="where prompts and runs are kept")] = Path("runs/vision"),
) -> None:
    """Runs what is missing, and writes results/vision.json."""
    prompts, found = home / "prompts", {}
    if not (prompts / "general.jsonl").is_file():
        write_prompts(prompts)
    for name, keep in TRAINED.items():
        folder, ended = home / name, home / f"{name}.json"
        if not ended.is_file():
            own = prompts if name == "all" else narrowed(prompts, home / f"{name}-prompts", keep)
            content = {
                "model": str(MODEL),
                "prompts": str(own),
                "authorise": ["medical"],
                "floor": ["weapons"],
            }
            recipe = home / f"{name}.yaml"
            write_text(recipe, yaml.safe_dump(content, sort_keys=False))
            write_json(ended, command("domain", recipe, "-o", folder))
        found[name] = figures(folder, read_json(ended))
        print(name, found[name], file=sys.stderr, flush=True)
        write("vision", found)


if __name__ == "__main__":
    typer.run(main)
