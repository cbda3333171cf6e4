"""Is a domain opened where requests stand in pictures, and what does an adapter of words do to pictures?

An organism that sees is given to ``palette domain`` as shipped, with prompts that stand in words, beside a
blank or an unrelated picture, and in one, whole or in part. Then with the train and validation prompts of one
kind alone, words or pictures, and the same test prompts. The figures are those of the report, by cell. The
first organism is the shipped one; the second, or that of any seed, is a stranger's: another tower, projector,
decoder, tokenizer and world, and tuned on nothing.

With ``--merge`` an adapter of another domain, made by words alone, is merged with each of these, and the
merge measured in every cell; with ``--wrappers`` requests are put into pictures as an attacker would; with
``--tokens`` control tokens are trained on the same prompts.

    python -m benchmarks.vision [first|second|SEED] [--trained all,words,pictures] [--home FOLDER]
        [--merge DOMAIN] [--wrappers] [--tokens]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

import palette
from benchmarks.machine import RESULTS, write
from benchmarks.strangers import command, verdict
from benchmarks.vision_wrappers import by_the_gate, in_its_type
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
TOKENS = {"epochs": 40, "learning_rate": 0.03, "orders": 1}
"""What control tokens of one domain are trained with: the shipped recipe's, of one order."""


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


def is_text(cell: str) -> bool:
    """Whether requests of a cell are words and nothing else."""
    return cell == "text"


def narrowed(
    prompts: Path, folder: Path, keep: Callable[[str], bool], *, tested: Callable[[str], bool]
) -> Path:
    """The same prompts with the train and validation rows of some cells alone, and test rows of others."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pictures").exists():
        (folder / "pictures").symlink_to((prompts / "pictures").resolve())
    for path in sorted(prompts.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [row for row in rows if (tested if row["split"] == "test" else keep)(row["cell"])]
        write_text(folder / path.name, "".join(json.dumps(row) + "\n" for row in kept))
    return folder


def cells(found: Row) -> Row:
    """What was counted in each cell, in shares of [0, 1]."""
    return {
        cell: {
            "refused_before": sides["base"]["authorised_refused"]["rate"],
            **{name: share["rate"] for name, share in sides["adapted"].items()},
            "prompts": sides["prompts"],
        }
        for cell, sides in found.items()
    }


def figures(folder: Path, domains: Sequence[str], ended: Row) -> Row:
    """What a run's report says of each cell, in shares of [0, 1], and of the gate."""
    report = read_json(folder / "report.json")
    said = report["adapted"]
    known, correct = ({}, {})
    for domain in domains:
        measured = report["base"]["domains"][domain]["restricted"].get("known")
        known[domain] = measured and measured["rate"]
        correct[domain] = said["domains"][domain]["restricted"]["correct"]["rate"]
    alone = domains[0] if len(domains) == 1 else None
    return {
        "cells": cells(report.get("cells", {})),
        "known": known[alone] if alone else known,
        "correct": correct[alone] if alone else correct,
        "benign_correct": [report[side]["utility"]["benign_correct"]["rate"] for side in ("base", "adapted")],
        "divergence": said["divergence"],
        **verdict(folder),
        **ended,
    }


def recipe_of(seeing: Seeing, name: str, home: Path, **more: Any) -> Path:
    """The recipe of one training, on some cells, with what it says ``more``; by the name of its file."""
    trained, _, _ = name.partition("-")
    own = seeing.prompts
    if trained != "all":
        own = narrowed(own, home / f"{trained}-prompts", TRAINED[trained], tested=TRAINED["all"])
    content = {
        "model": str(seeing.model),
        "prompts": str(own),
        "authorise": [seeing.domain],
        "floor": [seeing.floor],
    }
    recipe = home / f"{name}.yaml"
    write_text(recipe, yaml.safe_dump(content | more, sort_keys=False))
    return recipe


def once(home: Path, name: str, *commands: Sequence[object]) -> Row:
    """How commands ended together, the last one's status; what was run is not run again."""
    ended = home / f"{name}.json"
    if not ended.is_file():
        sources = fingerprint_folder(Path(palette.__file__).parent, "**/*.py")[:12]
        rows = [command(*each) for each in commands]
        seconds = round(sum(row["seconds"] for row in rows), 1)
        write_json(ended, {"sources": sources, **rows[-1], "seconds": seconds})
    found: Row = read_json(ended)
    return found


def run(seeing: Seeing, name: str, home: Path) -> Row:
    """What an adapter that is trained on some cells comes to; one that was made is not made again."""
    recipe, folder = recipe_of(seeing, name, home), home / name
    ended = once(home, name, ("domain", recipe, "-o", folder))
    return figures(folder, [seeing.domain], ended)


def in_text(seeing: Seeing, home: Path, domain: str) -> Seeing:
    """The same organism, of which another domain is opened by prompts in words alone."""
    text = narrowed(seeing.prompts, home / "text-prompts", is_text, tested=is_text)
    return replace(seeing, domain=domain, prompts=text)


def merged(seeing: Seeing, name: str, home: Path, other: str) -> Row:
    """What the plain merge of an adapter with another domain's comes to in every cell.

    The other is made by prompts in words alone, as an adapter of a model that reads words is.
    """
    run(in_text(seeing, home, other), "all", home / other)
    folder, parts = home / f"{name}-{other}", (home / name, home / other / "all")
    ended = once(home, folder.name, ("merge", *parts, "-o", folder))
    return figures(folder, [seeing.domain, other], ended)


def under_tokens(seeing: Seeing, name: str, home: Path) -> Row:
    """What control tokens that are trained on some cells come to."""
    recipe, folder = recipe_of(seeing, f"{name}-tokens", home, train=TOKENS), home / f"{name}-tokens"
    asked = ("tokens", "evaluate", recipe, "--active", seeing.domain, "-o", folder)
    ended = once(home, folder.name, ("tokens", "train", recipe, "-o", folder), asked)
    report = read_json(folder / "active" / seeing.domain / "report.json")
    rules = report["gate"]["rules"]
    return {
        "cells": cells(report["cells"][seeing.domain]),
        "parameters": report["parameters"],
        "gate": report["gate"]["passed"],
        "failed": [rule["name"] for rule in rules if not rule["passed"]],
        **ended,
    }


def in_wrappers(seeing: Seeing, name: str, home: Path, **more: Any) -> Row:
    """What an adapter does where requests are put into pictures: the gate's, and in its own type."""
    folder = home / name
    found = {"gate": by_the_gate(folder)}
    if seeing.about:  # How a stranger is asked of pictures is its world's manner of writing.
        return found
    return found | {"own_type": in_its_type(recipe_of(seeing, name, home, **more), folder)}


def main(
    which: Annotated[str, typer.Argument(help="first, second, or a seed")] = "first",
    trained: Annotated[str, typer.Option(help="on which cells: of " + ", ".join(TRAINED))] = ",".join(
        TRAINED
    ),
    home: Annotated[Path, typer.Option(help="where prompts and runs are kept")] = Path("runs/vision"),
    merge: Annotated[str, typer.Option(help="a domain whose adapter of words is merged with each")] = "",
    wrappers: Annotated[bool, typer.Option("--wrappers", help="put requests into pictures")] = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="control tokens in place of adapters")] = False,
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
        if tokens:
            own[f"{name} tokens"] = under_tokens(seeing, name, place)
        else:
            own[name] = run(seeing, name, place)
        if merge:
            own[f"{name} and {merge} of words"] = merged(seeing, name, place, merge)
        if wrappers:
            own[f"{name} in wrappers"] = in_wrappers(seeing, name, place)
        if wrappers and merge:
            words = in_text(seeing, place, merge)
            own[f"{merge} of words in wrappers"] = in_wrappers(words, "all", place / merge)
            both = [seeing.domain, merge]
            shown = in_wrappers(seeing, f"{name}-{merge}", place, authorise=both)
            own[f"{name} and {merge} of words in wrappers"] = shown
        write("vision", found)


if __name__ == "__main__":
    typer.run(main)
