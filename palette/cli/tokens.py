"""The commands of control tokens: train, evaluate, add, inspect and export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palette.cli.call import RECIPE, Call, command, listed

tokens = typer.Typer(
    name="tokens",
    help="Control tokens: categories switched by a prefix, the model frozen.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RecipeFile = Annotated[Path, typer.Argument(help="the recipe of control tokens", metavar="RECIPE")]


@tokens.command()
@command(*RECIPE)
def train(call: Call, recipe: RecipeFile) -> None:
    """Train the control tokens of every category, over subsets of them."""
    from palette.pipeline import train_tokens
    from palette.recipe import load_token_recipe

    result = train_tokens(load_token_recipe(recipe, call.overrides), call.output, call.progress)
    call.result(result, "tokens")


@tokens.command()
@command(*RECIPE)
def add(
    call: Call,
    recipe: RecipeFile,
    category: Annotated[str, typer.Argument(help="the category to add", metavar="CATEGORY")],
) -> None:
    """Add one category to trained tokens; the tokens of the others stay to the bit."""
    from palette.pipeline import add_category
    from palette.recipe import load_token_recipe

    result = add_category(load_token_recipe(recipe, call.overrides), category, call.output, call.progress)
    call.result(result, "tokens")


@tokens.command()
@command(*RECIPE)
def evaluate(
    call: Call,
    recipe: RecipeFile,
    active: Annotated[
        str | None, typer.Option(help="categories, joined by commas (default: every subset)")
    ] = None,
) -> None:
    """Judge the test split under one subset of active categories, or all, and put it to the gate."""
    from palette.recipe import load_token_recipe
    from palette.stages.tokens import evaluate_tokens

    chosen = None if active is None else listed(active)
    whole = load_token_recipe(recipe, call.overrides)
    report, folder = evaluate_tokens(whole, chosen, call.output, call.progress)
    call.result(report, "token_report", folder=folder)
    call.end(report["gate"]["passed"])


@tokens.command()
@command()
def inspect(
    call: Call,
    path: Annotated[Path, typer.Argument(help="a token file, or the folder that holds it", metavar="FILE")],
) -> None:
    """Say what a file of control tokens is."""
    from palette.stages.tokens import inspect_tokens

    call.result(inspect_tokens(path), "tokens")


@tokens.command()
@command(*RECIPE)
def export(
    call: Call,
    recipe: RecipeFile,
    active: Annotated[str, typer.Option(help="the categories of the prefix, joined by commas")],
) -> None:
    """Write the prefix of one subset as a PEFT prompt-tuning adapter."""
    from palette.recipe import load_token_recipe
    from palette.stages.tokens import export_subset

    result = export_subset(load_token_recipe(recipe, call.overrides), listed(active), call.output)
    call.result(result, "written")
