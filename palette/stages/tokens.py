"""Control tokens from a recipe: train, add, evaluate, and say what a file holds.

For ``authorise`` the replies to be taught come from the backbone itself, as an adapter's do: each domain
is collected and searched in a folder of its own, and its teachers speak.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from palette.errors import OutputError, RecipeError
from palette.evaluation.baseline import baseline_replies
from palette.files import claim, write_json
from palette.fingerprints import fingerprint
from palette.judging.rules import RuleJudge
from palette.mosaic import runs as training
from palette.mosaic.evaluation import SubsetPlan, evaluate, write_report
from palette.mosaic.examples import Taught, TokenExamples, course, opened_replies
from palette.mosaic.files import FILE, export_peft, read_tokens
from palette.progress import Progress, silent
from palette.recipe import TokenRecipe, load_token_recipe
from palette.run import Run
from palette.search.choice import read_front
from palette.search.collected import read_collected

Search = Callable[[Run, TokenRecipe, str], Run]
"""Collects and searches one domain of an authorisation; its run."""


def train_tokens(
    recipe: TokenRecipe | Path, search: Search, output: Path | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """What was trained and where it lies. What is done already is not done again.

    Raises:
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    whole, run = _opened(recipe, output, progress)
    inputs = _inputs(whole, run, whole.categories)
    if not _holds(run.folder, inputs):
        _claim(run, whole)
        started = time.monotonic()
        examples = _course(run, whole, search)
        prepared = time.monotonic() - started
        card = _card(whole, inputs)
        training.train(run, whole.sign, whole.train, examples, card)
        seconds = {"examples": round(prepared, 3), "train": round(time.monotonic() - started - prepared, 3)}
        if run.processes.first:
            write_json(run.folder / "train" / "seconds.json", seconds)
    return _said(run.folder)


def add_category(
    recipe: TokenRecipe | Path,
    category: str,
    search: Search,
    output: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """What was added, and where the tokens lie; those of the other categories stay to the bit.

    Raises:
        RecipeError: if there are tokens for the category already, or none to be added to.
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    whole, run = _opened(recipe, output, progress)
    path = run.folder / FILE
    if not path.is_file():
        raise OutputError(
            "a category is added to control tokens that are there",
            got="none",
            remedy="run tokens train first",
            where=run.folder,
        )
    tokens = read_tokens(path)
    if category in tokens.categories:
        raise RecipeError(
            "an added category must be a new one",
            got=category,
            remedy=f"there are tokens for {', '.join(tokens.categories)}",
        )
    tokens.require_backbone(run.backbone)
    wider = whole.widened({*tokens.categories, category})
    run = Run(wider, run.folder, progress)
    examples = _course(run, wider, search)
    inputs = fingerprint([_inputs(wider, run, wider.categories), tokens.digest])
    card = {**_card(wider, inputs), "added": [*tokens.card.get("added", []), category]}
    training.add(run, wider.train, examples, replace(tokens, card=card), category)
    return _said(run.folder)


def evaluate_tokens(
    recipe: TokenRecipe | Path,
    active: Sequence[str] | None = None,
    output: Path | None = None,
    progress: Progress = silent,
) -> tuple[dict[str, Any], Path]:
    """The report of the tokens in the recipe's folder, under one subset or all; and that folder.

    Raises:
        PaletteError: if the recipe, the prompts, the model, the tokens or the folder break a law.
    """
    whole, run = _opened(recipe, output, progress)
    tokens = read_tokens(run.folder)
    tokens.require_backbone(run.backbone)
    chosen = [] if active is None else [tokens.subset(active)]
    wider = whole.widened(tokens.categories)
    run = Run(wider, run.folder, progress)
    judge, floor_tokens = _judge(wider, run)
    provenance = {
        "recipe": whole.model_dump(mode="json"),
        "tokens": tokens.digest,
        "judge": judge.fingerprint,
        "seeds": {"run": whole.seed},
        "versions": {name: version(name) for name in ("palette-llm", "torch", "transformers", "safetensors")},
        "prompts": run.prompts.split(whole.evaluate.split).fingerprint,
        "floor": run.authorisation.floor.digest,
    }
    plan = SubsetPlan(whole.evaluate.split, floor_tokens)
    report = {**evaluate(run, judge, tokens, chosen, plan), "provenance": provenance}
    write_report(run.folder, report)
    return report, run.folder


def inspect_tokens(path: Path) -> dict[str, Any]:
    """What a file of control tokens is: categories, size, backbone, sign, place, digest and norms.

    Raises:
        AdapterError: if it is missing or damaged.
    """
    tokens = read_tokens(path)
    norms = {name: round(float(one.norm()), 4) for name, one in tokens.embeddings.items()}
    return {
        "path": str(path),
        "categories": list(tokens.categories),
        "sign": tokens.sign,
        "place": tokens.place,
        "slots": tokens.slots,
        "width": tokens.width,
        "parameters": tokens.table.numel(),
        "backbone": {"name": tokens.backbone.name, "fingerprint": tokens.backbone.fingerprint},
        "digest": tokens.digest,
        "norms": norms,
        "card": dict(tokens.card),
    }


def export_subset(
    recipe: TokenRecipe | Path, active: Sequence[str], output: Path | None = None
) -> dict[str, Any]:
    """Where the prefix of one subset lies as a PEFT prompt-tuning adapter, inside the run's folder.

    Raises:
        PaletteError: if the recipe or the tokens break a law, or PEFT's format cannot say the prefix.
    """
    _, run = _opened(recipe, output, silent)
    tokens = read_tokens(run.folder)
    folder = run.folder / "peft" / "+".join(tokens.subset(active))
    export_peft(folder, tokens, active, run.backbone)
    return {"output": str(folder), "active": list(tokens.subset(active)), "digest": tokens.digest}


def _opened(recipe: TokenRecipe | Path, output: Path | None, progress: Progress) -> tuple[TokenRecipe, Run]:
    whole = recipe if isinstance(recipe, TokenRecipe) else load_token_recipe(Path(recipe))
    run = Run(whole, output or Path("runs") / whole.name, progress)
    # Every law is checked before the folder is touched, so that a mistake leaves nothing behind.
    _require_known(whole, run)
    return whole, run


def _require_known(whole: TokenRecipe, run: Run) -> None:
    if whole.sign == "authorise":
        _ = run.authorisation
        return
    known = sorted({row.domain for row in run.prompts if row.kind == "restricted"})
    if unknown := sorted(set(whole.categories) - set(known)):
        raise RecipeError(
            "every restricted category must be a file with restricted rows in the prompt folder",
            got=", ".join(unknown),
            remedy=f"it has {', '.join(known) or 'none'}",
            where=whole.prompts,
        )


def _course(run: Run, whole: TokenRecipe, search: Search) -> TokenExamples:
    taught: Taught | None = None
    settings = whole.train
    if whole.sign == "authorise":
        taught = {}
        for domain in whole.categories:
            own = search(run, whole, domain)
            collected = read_collected(own.folder)
            settings = settings.showing(collected.floor_tokens)
            replies = opened_replies(own, collected, read_front(own.folder))
            taught = {**taught, **replies}
    return course(run, whole.sign, settings, taught)


def _judge(whole: TokenRecipe, run: Run) -> tuple[RuleJudge, int]:
    """The judge, and after how many tokens refusals show.

    Of an authorisation with the backbone's own refusals, else with the taught one.
    """
    if whole.sign == "authorise":
        baseline = baseline_replies(run)
        return baseline.judge, baseline.floor_tokens
    return RuleJudge(), 0


def _inputs(whole: TokenRecipe, run: Run, categories: Sequence[str]) -> str:
    """The fingerprint of all that the trained tokens depend on."""
    settings = whole.train.model_dump(mode="json", exclude=set(whole.train.free))
    lectures = [whole.search, whole.internalise] if whole.sign == "authorise" else []
    return fingerprint(
        [
            version("palette-llm"),
            run.backbone_fingerprint,
            run.prompts.fingerprint,
            [whole.sign, list(categories), list(whole.floor), whole.reasons],
            settings,
            [one.model_dump(mode="json") for one in lectures],
            [whole.seed, whole.dtype, whole.device, whole.threads, whole.thinking],
            [whole.limit, whole.reply_tokens, whole.floor_tokens],
        ]
    )


def _holds(folder: Path, inputs: str) -> bool:
    path = folder / FILE
    return path.is_file() and read_tokens(path).card.get("inputs") == inputs


def _claim(run: Run, whole: TokenRecipe) -> None:
    if run.processes.first:
        claim(run.folder, {"tokens": whole.name})


def _card(whole: TokenRecipe, inputs: str) -> dict[str, Any]:
    recipe = whole.model_dump(
        mode="json", include={"model", "prompts", "restrict", "authorise", "floor", "train"}
    )
    return {"inputs": inputs, "recipe": recipe, "seeds": {"run": whole.seed}}


def _said(folder: Path) -> dict[str, Any]:
    return {"tokens": str(folder / FILE), **inspect_tokens(folder)}


__all__ = [
    "add_category",
    "evaluate_tokens",
    "export_subset",
    "inspect_tokens",
    "train_tokens",
]
