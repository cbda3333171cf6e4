"""The init verb: a recipe with its reasons beside it, for a model and prompts of the user's own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from palette.errors import OutputError, RecipeError
from palette.files import write_text
from palette.prompts import load_prompts
from palette.threads import LANES

RECIPE = "recipe.yaml"

TEXT = """\
# What this run opens, for which model, by which prompts. All keys: docs/recipe-reference.md.
# Before anything else:  palette check {recipe}
# Then:                  palette domain {recipe}

# A folder, a hub name, a GGUF file, or package:<a Python package that brings one>.
model: {model}

# A folder of <domain>.jsonl, one row a prompt: {{"id": …, "prompt": …, "kind": "restricted" or "benign"}};
# "tier": "C" is refused for everyone, and "answer" lets evaluate tell right answers from replies.
# Public sets and tables of your own are read as they are: docs/prompts.md.
prompts: {prompts}

# The domains to open{known}. All others stay as they are.
authorise: [{authorise}]

# Domains that nobody may open, besides the built-in floor.
# floor: [weapons]

# The machine: precision and device of the model, threads of a pass, and memory for what is kept.
# dtype: float32
device: auto
threads: {threads}
# memory_gib: 4

# Tokens of a reply at most: as long as the model's usual answer.
# reply_tokens: 128
"""
PLAIN = re.compile(r"[\w./~][\w./~:-]*[\w./~-]")
"""What YAML takes for a text without quotation marks."""


def init(
    folder: Path | str, model: str | None = None, prompts: str | None = None, authorise: Sequence[str] = ()
) -> dict[str, Any]:
    """Writes ``recipe.yaml`` into a folder; its path, the domains of the prompts, and what is to be set.

    Without ``prompts`` the folder ``prompts`` beside the recipe is meant, whether or not it is there yet.

    Raises:
        OutputError: if there is a recipe, or the disk cannot take one.
        PromptError: if the prompts that are there cannot be read.
        RecipeError: if a domain to open is none of theirs.
    """
    folder = Path(folder)
    path = folder / RECIPE
    if path.exists():
        raise OutputError(
            "a recipe is written where there is none",
            got="one",
            remedy="edit it, or name another folder",
            where=path,
        )
    beside = folder / "prompts"
    place = Path(prompts).expanduser() if prompts else beside
    domains: tuple[str, ...] = ()
    if prompts == "organism":
        from palette import organism

        domains = load_prompts(organism.prompts("organism")).domains
    elif place.is_dir():
        domains = load_prompts(place).domains
    if domains and (unknown := sorted(set(authorise) - set(domains))):
        raise RecipeError(
            f"a domain to open must be one of {', '.join(domains)}", got=", ".join(unknown), where=place
        )
    text = TEXT.format(
        recipe=path,
        model=_stated(model, folder) if model else "…",
        prompts=_stated(prompts, folder) if prompts else "./prompts",
        known=f", of {', '.join(domains)}" if domains else "",
        authorise=", ".join(map(_quoted, authorise)),
        threads=max(1, (os.cpu_count() or 1) // LANES),
    )
    write_text(path, text, "name another folder")
    named = (("model", model), ("prompts", prompts or domains), ("authorise", authorise))
    return {
        "recipe": str(path),
        "domains": list(domains),
        "missing": [key for key, given in named if not given],
    }


def _stated(place: str, folder: Path) -> str:
    """A path as a recipe in the folder may state it, wherever the command is called; any name as it is."""
    path = Path(place).expanduser()
    if not path.exists():
        return _quoted(place)
    whole, home = path.resolve(), folder.resolve()
    return _quoted(f"./{whole.relative_to(home)}" if whole.is_relative_to(home) else str(whole))


def _quoted(text: str) -> str:
    """A text as YAML reads it back: as it is, or in quotation marks where a sign might mean something."""
    # "no" is a truth value, and "1e3" a number.
    plain = PLAIN.fullmatch(text) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text)
