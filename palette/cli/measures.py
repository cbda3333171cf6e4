"""The commands that measure, and that show measurements: compare, suite, and calibrate a judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palette.cli.call import RECIPE, Call, command

ReportPath = Annotated[Path, typer.Argument(help="a report.json, or the folder of a run", metavar="REPORT")]

judge = typer.Typer(
    name="judge",
    help="Measure a judge of replies on labelled text.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@command("output")
def compare(call: Call, one: ReportPath, other: ReportPath) -> None:
    """Show two reports side by side; first, whether they answer the same question."""
    from palette.stages.compare import PAGE
    from palette.stages.compare import compare as compare_reports

    comparison = compare_reports(one, other, call.output)
    call.result(comparison, "comparison", page=call.output and call.output / PAGE)


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
    from palette.files import write_json
    from palette.judging.calibration import FILE, column_map, read_labelled
    from palette.judging.calibration import calibrate as calibrate_judge
    from palette.judging.judge import judge_named

    names = column_map(columns)
    read = [read_labelled(file, names) for file in files]
    calibration = calibrate_judge(judge_named(judge), judge, read)
    path = (call.output or Path("runs") / "calibration") / FILE
    write_json(path, calibration)
    call.result(calibration, "calibration", path=path)
