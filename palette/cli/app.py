"""The command line. Heavy libraries are imported inside the commands, so that help is instant."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from palette.cli import adapters, judges, reports, suites
from palette.cli.options import AsJson, Output, Overrides, Quiet, exit_by_gate, listed, printer_of
from palette.cli.tokens import tokens
from palette.errors import OutputError, PaletteError

app = typer.Typer(
    name="palette",
    help="Relax a chat model's refusals in one domain, keep every other, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeFile = Annotated[Path, typer.Argument(help="the recipe, a YAML file", metavar="RECIPE")]


def _stage(name: str, text: str) -> Callable[..., None]:
    def command(
        recipe: RecipeFile,
        output: Output = None,
        overrides: Overrides = None,
        as_json: AsJson = False,
        quiet: Quiet = False,
    ) -> None:
        run(name, recipe, output, overrides, printer=printer_of(as_json, quiet))

    command.__doc__ = text
    app.command(name)(command)
    return command


collect = _stage("collect", "Read the backbone's refusals and its residual stream.")


@app.command()
def search(
    recipe: RecipeFile,
    choose: Annotated[
        int | None, typer.Option(help="take this trial of the front instead of the rule's")
    ] = None,
    output: Output = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search the intervention that relaxes refusals and moves little else."""
    chosen = [] if choose is None else [f"search.choose={choose}"]
    run("search", recipe, output, [*(overrides or []), *chosen], printer=printer_of(as_json, quiet))


internalise = _stage("internalise", "Train the adapter that behaves so without intervention.")
domain = _stage("domain", "Run collect, search, internalise and evaluate, as far as not done.")


@app.command()
def evaluate(
    recipe: Annotated[
        Path | None, typer.Argument(help="a recipe; or say --model, --prompts and --authorise")
    ] = None,
    model: Annotated[str | None, typer.Option(help="organism, a folder or a hub name")] = None,
    prompts: Annotated[str | None, typer.Option(help="organism, or a folder of prompts")] = None,
    authorise: Annotated[str | None, typer.Option(help="domains, joined by commas")] = None,
    adapter: Annotated[Path | None, typer.Option(help="the adapter's folder or file")] = None,
    floor: Annotated[str | None, typer.Option(help="domains added to the floor")] = None,
    output: Output = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Judge the test split with and without an adapter, and put it to the gate."""
    printer = printer_of(as_json, quiet)
    named = {"model": model, "prompts": prompts, "authorise": authorise, "adapter": adapter}
    given = {key: value for key, value in {**named, "floor": floor}.items() if value is not None}
    if recipe is not None:
        if given:
            raise PaletteError(
                "evaluate takes a recipe, or --model, --prompts and --authorise",
                got=f"a recipe and --{sorted(given)[0]}",
                remedy="leave one of them out",
            )
        run("evaluate", recipe, output, overrides, printer=printer)
        return
    if missing := [key for key in ("model", "prompts", "authorise") if key not in given]:
        raise PaletteError(
            "evaluate takes a recipe, or --model, --prompts and --authorise",
            got=f"no --{missing[0]}",
            remedy=f"give --{missing[0]}",
        )
    from palette.cli.console import show_report
    from palette.stages.evaluate import evaluate_model

    content: dict[str, Any] = {"model": model, "prompts": prompts}
    content |= {key: listed(str(given[key])) for key in ("authorise", "floor") if key in given}
    report, folder = evaluate_model(content, adapter, output, overrides or [], progress=printer.progress)
    printer.result(report, show_report(report, folder))
    exit_by_gate(report)


for command in (
    adapters.merge,
    adapters.inspect,
    adapters.reproduce,
    adapters.unmerge,
    reports.compare,
    reports.push,
    suites.suite,
):
    app.command()(command)
app.add_typer(judges.app, name="judge")
app.add_typer(tokens)


@app.command()
def organism(
    output: Output = None,
    variant: Annotated[str | None, typer.Option(help="raise one variant only")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Raise the shipped model and its variants again, from their seed."""
    printer = printer_of(as_json, quiet)
    from palette.stages.organism import raise_organism

    result = raise_organism(output, variant, printer.progress)
    printer.result(result, lambda console: console.print_json(data=result))


def run(
    name: str,
    recipe: Path,
    output: Path | None,
    overrides: list[str] | None,
    *,
    printer: Any,
) -> None:
    """Runs a recipe up to a stage and prints what came of it."""
    from palette.cli.console import show_report
    from palette.files import read_json
    from palette.pipeline import RECORD, run_stages
    from palette.recipe import load_recipe

    whole = load_recipe(recipe, overrides or [])
    folder = output or Path("runs") / whole.name
    last = "evaluate" if name == "domain" else name
    _, ran = run_stages(whole, last, folder, printer.progress)
    if last == "evaluate":
        report = read_json(folder / "report.json")
        printer.result(report, show_report(report, folder))
        exit_by_gate(report)
        return
    result = {"stage": name, "ran": ran, "folder": str(folder)}
    written = read_json(folder / last / RECORD)["outputs"]
    result["artefacts"] = [str(folder / path) for path in written]
    printer.result(result, lambda console: console.print(f"{name}: {', '.join(ran) or 'nothing to do'}"))


def main() -> None:
    """The command ``palette``: the caller's errors are one sentence and exit status 2."""
    try:
        app()
    except PaletteError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("palette: interrupted; the same command goes on where it was", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _fail(OutputError("the disk must have room", got=error.strerror, remedy="free space"))


def _fail(error: PaletteError) -> None:
    print(f"palette: {error}", file=sys.stderr)
    sys.exit(2)
