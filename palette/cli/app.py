"""The command line: what works by a recipe, and what measures. Those on adapters and tokens stand beside it.

Heavy libraries are imported inside the commands, so that help is instant.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from palette import __version__
from palette.cli import adapters, certificates
from palette.cli.call import RECIPE, Call, command, interrupted, listed
from palette.cli.grants import grant
from palette.cli.ledger import ledger
from palette.cli.serving import serve
from palette.cli.stages import run
from palette.cli.tenants import operator_group, tenant
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

judge = typer.Typer(
    name="judge",
    help="Measure a judge of replies on labelled text.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RecipeFile = Annotated[Path, typer.Argument(help="the recipe, a YAML file", metavar="RECIPE")]
ReportPath = Annotated[Path, typer.Argument(help="a report.json, or the folder of a run", metavar="REPORT")]


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    """Says which version this is, if that is asked."""
    if version:
        typer.echo(f"palette {__version__}")
        raise typer.Exit


def _stage(name: str, text: str) -> Callable[..., None]:
    def stage(call: Call, recipe: RecipeFile) -> None:
        run(name, recipe, call)

    stage.__doc__ = text
    return app.command(name)(command(*RECIPE)(stage))


@app.command()
@command()
def init(
    call: Call,
    folder: Annotated[Path, typer.Argument(help="where the recipe is to stand", metavar="FOLDER")],
    model: Annotated[str | None, typer.Option(help="a folder, a hub name or a GGUF file")] = None,
    prompts: Annotated[str | None, typer.Option(help="a folder of prompts, or YAML of their sources")] = None,
    authorise: Annotated[str | None, typer.Option(help="domains, joined by commas")] = None,
) -> None:
    """Write a recipe with its reasons beside it, for a model and prompts of your own."""
    from palette.stages.init import init as write_recipe

    result = write_recipe(folder, model, prompts, listed(authorise) if authorise else ())
    call.result(result, "init")


@app.command()
@command(*RECIPE)
def check(call: Call, recipe: RecipeFile) -> None:
    """Say what a run would stumble over, and what its gate will lack, before a model runs."""
    from palette.recipe import load_recipe

    whole = load_recipe(recipe, call.overrides)
    from palette.stages.check import check as check_recipe

    found = check_recipe(whole, call.output)
    call.result(found, "check")
    if found["errors"]:
        raise typer.Exit(2)


collect = _stage("collect", "Read the backbone's refusals and its residual stream.")


@app.command()
@command(*RECIPE)
def search(
    call: Call,
    recipe: RecipeFile,
    choose: Annotated[
        int | None, typer.Option(help="take this trial of the front instead of the rule's")
    ] = None,
) -> None:
    """Search the intervention that relaxes refusals and moves little else."""
    run("search", recipe, call, [] if choose is None else [f"search.choose={choose}"])


internalise = _stage("internalise", "Train the adapter that behaves so without intervention.")
domain = _stage("domain", "Run collect, search, internalise and evaluate, as far as not done.")


@app.command()
@command(*RECIPE)
def evaluate(
    call: Call,
    recipe: Annotated[
        Path | None, typer.Argument(help="a recipe; or say --model, --prompts and --authorise")
    ] = None,
    model: Annotated[str | None, typer.Option(help="organism, a folder or a hub name")] = None,
    prompts: Annotated[str | None, typer.Option(help="organism, or a folder of prompts")] = None,
    authorise: Annotated[str | None, typer.Option(help="domains, joined by commas")] = None,
    adapter: Annotated[Path | None, typer.Option(help="the adapter's folder or file")] = None,
    floor: Annotated[str | None, typer.Option(help="domains added to the floor")] = None,
) -> None:
    """Judge the test split with and without an adapter, and put it to the gate."""
    named = {"model": model, "prompts": prompts, "authorise": authorise, "adapter": adapter, "floor": floor}
    given = {key: value for key, value in named.items() if value is not None}
    missing = [key for key in ("model", "prompts", "authorise") if key not in given]
    if (recipe is not None and given) or (recipe is None and missing):
        raise PaletteError(
            "evaluate takes a recipe, or --model, --prompts and --authorise",
            got=f"a recipe and --{sorted(given)[0]}" if recipe else f"no --{missing[0]}",
            remedy="leave one of them out" if recipe else f"give --{missing[0]}",
        )
    if recipe is not None:
        run("evaluate", recipe, call)
        return
    from palette.stages.evaluate import evaluate_model

    content: dict[str, Any] = {"model": model, "prompts": prompts}
    content |= {key: listed(str(given[key])) for key in ("authorise", "floor") if key in given}
    report, folder = evaluate_model(content, adapter, call.output, call.overrides, progress=call.progress)
    call.result(report, "report", folder=folder)
    call.end(report.gate.passed)


@app.command()
@command()
def ask(
    call: Call,
    folder: Annotated[Path, typer.Argument(help="the folder of a run", metavar="RUN")],
    prompt: Annotated[
        str | None, typer.Argument(help="an id, or a prompt in words (default: those that decided the gate)")
    ] = None,
    ids: Annotated[str | None, typer.Option(help="ids of prompts, joined by commas")] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="where the adapter lies, if not in the run's folder")
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="a picture that is shown before a prompt in words; repeatable")
    ] = None,
) -> None:
    """Show what the backbone and the adapter reply, side by side; never to prompts of the floor."""
    from palette.stages.ask import ask as ask_both

    result = ask_both(folder, prompt, listed(ids) if ids else (), adapter, call.progress, image or ())
    call.result(result, "ask")


for verb in (
    adapters.merge,
    adapters.inspect,
    adapters.export,
    adapters.attribute,
    adapters.reproduce,
    adapters.unmerge,
    adapters.push,
    certificates.certify,
    certificates.verify,
    certificates.revoke,
):
    app.command()(verb)


@app.command()
@command("output")
def compare(call: Call, one: ReportPath, other: ReportPath) -> None:
    """Show two reports side by side; first, whether they answer the same question."""
    from palette.stages.compare import PAGE
    from palette.stages.compare import compare as compare_reports

    comparison = compare_reports(one, other, call.output)
    call.result(comparison, "comparison", page=call.output and call.output / PAGE)


@app.command()
@command("output")
def summary(
    call: Call,
    run: Annotated[Path, typer.Argument(help="the folder of a run, or its report.json", metavar="RUN")],
    safety_case: Annotated[
        bool, typer.Option("--safety-case", help="write the safety case: claims down to stated defeaters")
    ] = False,
) -> None:
    """Write one A4 page of a report to be signed, or its safety case; as HTML that prints."""
    from palette.stages.summary import summary as summarise

    call.result(summarise(run, call.output, safety_case=safety_case), "summary")


@app.command()
@command(*RECIPE)
def suite(
    call: Call,
    file: Annotated[Path, typer.Argument(help="the suite, a YAML file", metavar="SUITE")],
    model: Annotated[str, typer.Option(help="organism, a folder or a hub name")],
    adapter: Annotated[Path | None, typer.Option(help="the adapter's folder or file")] = None,
    data: Annotated[Path | None, typer.Option(help="the folder beneath which the suite's files lie")] = None,
    inspect_log: Annotated[
        Path | None, typer.Option(help="run it in inspect-ai too; its logs go into this folder")
    ] = None,
    inspect_texts: Annotated[
        bool, typer.Option("--inspect-texts", help="write benign prompts and replies into those logs")
    ] = False,
) -> None:
    """Measure refusals, utility, knowledge and divergence by a suite, adapter off and on."""
    from palette.stages.suite import Places
    from palette.stages.suite import suite as measure_suite

    places = Places(data, call.output, inspect_log, inspect_texts)
    result, folder = measure_suite(file, model, adapter, places, call.overrides, call.progress)
    call.result(result, "suite", folder=folder)


@app.command()
@command()
def runs(
    call: Call,
    folder: Annotated[Path, typer.Argument(help="where they are", metavar="FOLDER")] = Path("runs"),
) -> None:
    """List runs: what each opens, of which model, what its gate said, and when."""
    from palette.stages.runs import runs as list_runs

    call.result(list_runs(folder), "runs")


@judge.command()
@command("output")
def calibrate(
    call: Call,
    files: Annotated[list[Path], typer.Argument(help="labelled replies, csv or jsonl", metavar="FILE...")],
    columns: Annotated[
        str, typer.Option(help="name=column, joined by commas: prompt, completion, label, model")
    ] = "",
    judge: Annotated[
        str, typer.Option(help="panel, rule, trained[:PATH], classifier:PATH, chat:…")
    ] = "panel",
) -> None:
    """Measure a judge's error on labelled replies, and keep it for reports."""
    from palette.stages.calibrate import DEFAULT, FILE
    from palette.stages.calibrate import calibrate as calibrate_judge

    calibration = calibrate_judge(files, judge, columns, call.output)
    call.result(calibration, "calibration", path=(call.output or DEFAULT) / FILE)


app.command()(serve)
app.add_typer(judge)
app.add_typer(tokens)
app.add_typer(tenant)
app.add_typer(operator_group)
app.add_typer(grant)
app.add_typer(ledger)
app.add_typer(certificates.keys)


def main() -> None:
    """The command ``palette``: the caller's errors are one sentence and exit status 2."""
    try:
        app()
    except PaletteError as error:
        _fail(error)
    except KeyboardInterrupt as stop:
        sys.exit(interrupted(stop))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _fail(OutputError("the disk must have room", got=error.strerror, remedy="free space"))


def _fail(error: PaletteError) -> None:
    for sentence in str(error).split("\n"):
        print(f"palette: {sentence}", file=sys.stderr)
    sys.exit(2)
