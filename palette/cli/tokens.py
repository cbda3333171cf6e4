"""The commands of control tokens: train, evaluate, add, inspect and export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palette.cli.options import AsJson, Output, Overrides, Quiet, exit_by_gate, listed, printer_of

tokens = typer.Typer(
    name="tokens",
    help="Control tokens: categories switched by a prefix, the model frozen.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RecipeFile = Annotated[Path, typer.Argument(help="the recipe of control tokens", metavar="RECIPE")]


@tokens.command()
def train(
    recipe: RecipeFile,
    output: Output = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train the control tokens of every category, over subsets of them."""
    from palette.cli.token_console import show_tokens
    from palette.pipeline import train_tokens
    from palette.recipe import load_token_recipe

    printer = printer_of(as_json, quiet)
    result = train_tokens(load_token_recipe(recipe, overrides or []), output, printer.progress)
    printer.result(result, show_tokens(result))


@tokens.command()
def add(
    recipe: RecipeFile,
    category: Annotated[str, typer.Argument(help="the category to add", metavar="CATEGORY")],
    output: Output = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Add one category to trained tokens; the tokens of the others stay to the bit."""
    from palette.cli.token_console import show_tokens
    from palette.pipeline import add_category
    from palette.recipe import load_token_recipe

    printer = printer_of(as_json, quiet)
    result = add_category(load_token_recipe(recipe, overrides or []), category, output, printer.progress)
    printer.result(result, show_tokens(result))


@tokens.command()
def evaluate(
    recipe: RecipeFile,
    active: Annotated[
        str | None, typer.Option(help="categories, joined by commas (default: every subset)")
    ] = None,
    output: Output = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Judge the test split under one subset of active categories, or all, and put it to the gate."""
    from palette.cli.token_console import show_token_report
    from palette.recipe import load_token_recipe
    from palette.stages.tokens import evaluate_tokens

    printer = printer_of(as_json, quiet)
    chosen = None if active is None else listed(active)
    report, folder = evaluate_tokens(
        load_token_recipe(recipe, overrides or []), chosen, output, printer.progress
    )
    printer.result(report, show_token_report(report, folder))
    exit_by_gate(report)


@tokens.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="a token file, or the folder that holds it", metavar="FILE")],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what a file of control tokens is."""
    from palette.cli.token_console import show_tokens
    from palette.stages.tokens import inspect_tokens

    result = inspect_tokens(path)
    printer_of(as_json, quiet).result(result, show_tokens(result))


@tokens.command()
def export(
    recipe: RecipeFile,
    active: Annotated[str, typer.Option(help="the categories of the prefix, joined by commas")],
    output: Output = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write the prefix of one subset as a PEFT prompt-tuning adapter."""
    from palette.recipe import load_token_recipe
    from palette.stages.tokens import export_subset

    printer = printer_of(as_json, quiet)
    result = export_subset(load_token_recipe(recipe, overrides or []), listed(active), output)
    printer.result(result, lambda console: console.print(f"written to {result['output']}", soft_wrap=True))
