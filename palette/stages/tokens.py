"""Control tokens from a recipe: train, add, evaluate, and say what a file holds.

For ``authorise`` the replies to be taught come from the backbone itself, as an adapter's do: each domain
is collected and searched in a folder of its own, and its teachers speak.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from palette.errors import OutputError, RecipeError
from palette.evaluation.baseline import baseline_replies
from palette.files import claim, require_free, write_json, write_text
from palette.fingerprints import fingerprint
from palette.judging.rules import RuleJudge
from palette.mosaic.evaluation import SubsetPlan, evaluate
from palette.mosaic.examples import TokenExamples, teachers_replies, token_examples
from palette.mosaic.settings import PLAN, TokenPlan
from palette.mosaic.tokens import TOKENS_FILE, export_peft, read_tokens
from palette.mosaic.training import TokenTraining
from palette.processes import Progress, silent
from palette.recipe import TokenRecipe, load_token_recipe
from palette.reporting.pages import render_tokens
from palette.run import Run
from palette.search.space import read_collected, read_relaxing
from palette.working import working

ACTIVE = Path("active")
"""The folder of the reports of one subset each."""
Search = Callable[[Run, TokenRecipe, str], Run]
"""Collects and searches one domain of an authorisation; its run."""


def train_tokens(
    recipe: TokenRecipe | Path | str,
    search: Search,
    output: Path | str | None = None,
    progress: Progress = silent,
    plan: TokenPlan = PLAN,
) -> dict[str, Any]:
    """What was trained and where it lies. What is done already is not done again.

    Raises:
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    run = _opened(recipe, output, progress)
    owner = {"tokens": run.recipe.name}
    require_free(run.folder, owner)
    with working(run.folder):
        path, inputs = run.folder / TOKENS_FILE, _inputs(run, plan)
        if not path.is_file() or read_tokens(path).card.get("inputs") != inputs:
            if run.processes.first:
                claim(run.folder, owner)
            started = time.monotonic()
            examples = _examples(run, search, plan)
            prepared = time.monotonic()
            TokenTraining(run, run.recipe.train, examples, plan).train(_card(run.recipe, inputs))
            seconds = {"examples": prepared - started, "train": time.monotonic() - prepared}
            if run.processes.first:
                rounded = {name: round(value, 3) for name, value in seconds.items()}
                write_json(run.folder / "train" / "seconds.json", rounded)
    return {"tokens": str(path), **inspect_tokens(run.folder)}


def add_category(
    recipe: TokenRecipe | Path | str,
    category: str,
    search: Search,
    output: Path | str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """What was added, and where the tokens lie; those of the other categories stay to the bit.

    Raises:
        RecipeError: if there are tokens for the category already, or none to be added to.
        PaletteError: if the recipe, the prompts, the model or the folder break a law.
    """
    run = _opened(recipe, output, progress)
    path = run.folder / TOKENS_FILE
    if not path.is_file():
        raise OutputError(
            "a category is added to control tokens that are there",
            got="none",
            remedy="run palette tokens train first",
            where=run.folder,
        )
    tokens = read_tokens(path)
    if category in tokens.categories:
        raise RecipeError(
            "an added category must be a new one",
            got=category,
            remedy=f"add one beside {', '.join(tokens.categories)}",
        )
    with working(run.folder):
        tokens.require_backbone(run.backbone)
        run = Run(run.recipe.widened({*tokens.categories, category}), run.folder, progress)
        inputs = fingerprint([_inputs(run, PLAN), tokens.digest])
        card = {**_card(run.recipe, inputs), "added": [*tokens.card.get("added", []), category]}
        training = TokenTraining(run, run.recipe.train, _examples(run, search, PLAN))
        training.add(replace(tokens, card=card), category)
    return {"tokens": str(path), **inspect_tokens(run.folder)}


def evaluate_tokens(
    recipe: TokenRecipe | Path | str,
    active: Sequence[str] | None = None,
    output: Path | str | None = None,
    progress: Progress = silent,
    plan: SubsetPlan | None = None,
) -> tuple[dict[str, Any], Path]:
    """The report of the tokens in the recipe's folder under all subsets, and where it lies.

    That of one subset of ``active`` categories alone is written into a folder of its own inside.

    Raises:
        PaletteError: if the recipe, the prompts, the model, the tokens or the folder break a law.
    """
    run = _opened(recipe, output, progress)
    with working(run.folder):
        return _evaluated(run, active, plan or SubsetPlan())


def _evaluated(
    run: Run[TokenRecipe], active: Sequence[str] | None, plan: SubsetPlan
) -> tuple[dict[str, Any], Path]:
    """The report, and its folder, which for one subset is one of its own beside the whole report."""
    whole, tokens = run.recipe, read_tokens(run.folder)
    tokens.require_backbone(run.backbone)
    chosen = [] if active is None else [tokens.subset(active)]
    run = Run(whole.widened(tokens.categories), run.folder, run.progress)
    judge, floor_tokens = RuleJudge(), 0
    if whole.sign == "authorise":
        # The backbone's own refusals are judged; to restrict, the taught one is, which any judge knows.
        baseline = baseline_replies(run)
        judge, floor_tokens = baseline.judge, baseline.floor_tokens
    plan = replace(plan, split=whole.evaluate.split, floor_tokens=floor_tokens)
    provenance = {
        "recipe": whole.model_dump(mode="json"),
        "tokens": tokens.digest,
        "judge": judge.fingerprint,
        "seeds": {"run": whole.seed},
        "versions": {name: version(name) for name in ("palette-llm", "torch", "transformers", "safetensors")},
        "prompts": run.prompts.split(whole.evaluate.split).fingerprint,
        "floor": run.authorisation.floor.digest,
    }
    report = {**evaluate(run, judge, tokens, chosen, plan), "provenance": provenance}
    folder = run.folder if active is None else run.folder / ACTIVE / ("+".join(chosen[0]) or "none")
    write_text(folder / "report.html", render_tokens(report))
    write_json(folder / "report.json", report)
    return report, folder


def inspect_tokens(path: Path | str) -> dict[str, Any]:
    """What a file of control tokens is: categories, size, backbone, sign, place, digest and norms.

    Raises:
        AdapterError: if it is missing or damaged.
    """
    tokens = read_tokens(Path(path))
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
        "norms": tokens.norms,
        "card": dict(tokens.card),
    }


def export_subset(
    recipe: TokenRecipe | Path | str, active: Sequence[str], output: Path | str | None = None
) -> dict[str, Any]:
    """Where the prefix of one subset lies as a PEFT prompt-tuning adapter, inside the run's folder.

    Raises:
        PaletteError: if the recipe or the tokens break a law, or PEFT's format cannot say the prefix.
    """
    run = _opened(recipe, output, silent)
    tokens = read_tokens(run.folder)
    chosen = tokens.subset(active)
    folder = run.folder / "peft" / "+".join(chosen)
    export_peft(folder, tokens, chosen, run.backbone)
    return {"output": str(folder), "active": list(chosen), "digest": tokens.digest}


def _opened(
    recipe: TokenRecipe | Path | str, output: Path | str | None, progress: Progress
) -> Run[TokenRecipe]:
    """The recipe's run. Every law is checked before its folder is touched: a mistake leaves nothing there."""
    whole = recipe if isinstance(recipe, TokenRecipe) else load_token_recipe(recipe)
    run = Run(whole, Path(output or Path("runs") / whole.name), progress)
    if whole.sign == "authorise":
        _ = run.authorisation
        return run
    known = sorted({row.domain for row in run.prompts if row.kind == "restricted"})
    if unknown := sorted(set(whole.categories) - set(known)):
        raise RecipeError(
            "every restricted category must be a file with restricted rows in the prompt folder",
            got=", ".join(unknown),
            remedy=f"it has {', '.join(known) or 'none'}",
            where=whole.prompts,
        )
    return run


def _examples(run: Run[TokenRecipe], search: Search, plan: TokenPlan) -> TokenExamples:
    """What is taught; of an authorisation the replies of each domain's teachers."""
    recipe = run.recipe
    if recipe.sign == "restrict":
        return token_examples(run, recipe.train, plan)
    taught: dict[tuple[int, ...], tuple[int, ...]] = {}
    floor_tokens = 0
    for domain in recipe.categories:
        searched = search(run, recipe, domain)
        collected = read_collected(searched.folder)
        floor_tokens = max(floor_tokens, collected.floor_tokens)
        taught |= teachers_replies(searched, collected, read_relaxing(searched.folder))
    return token_examples(run, recipe.train, plan, taught, floor_tokens)


def _inputs(run: Run[TokenRecipe], plan: TokenPlan) -> str:
    """The fingerprint of all that the trained tokens depend on."""
    recipe = run.recipe
    groups = [recipe.train, *([recipe.search, recipe.internalise] if recipe.sign == "authorise" else [])]
    return fingerprint(
        [
            run.identity,
            recipe.sign,
            [group.model_dump(mode="json") for group in groups],
            [recipe.limit, recipe.reply_tokens, recipe.floor_tokens],
            asdict(plan),
        ]
    )


def _card(recipe: TokenRecipe, inputs: str) -> dict[str, Any]:
    keys = {
        "model",
        "prompts",
        "restrict",
        "authorise",
        "floor",
        "train",
        *(["system"] if recipe.system else []),
    }
    said = recipe.model_dump(mode="json", include=keys)
    return {"inputs": inputs, "recipe": said, "seeds": {"run": recipe.seed}}
