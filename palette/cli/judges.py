"""The commands on judges alone: calibrate and train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from palette.cli.options import AsJson, Output, Quiet, printer_of

app = typer.Typer(help="Measure a judge of replies on labelled text, or train one.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(help="labelled replies, csv or jsonl", metavar="FILE...")]
Columns = Annotated[str, typer.Option(help="name=column, joined by commas: prompt, completion, label, model")]


@app.command()
def calibrate(
    files: Files,
    columns: Columns = "",
    judge: Annotated[
        str, typer.Option(help="panel, rule, trained[:PATH], classifier:PATH, chat:…")
    ] = "panel",
    output: Output = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure a judge's error on labelled replies, and keep it for reports."""
    printer = printer_of(as_json, quiet)
    from palette.cli.console import show_calibration
    from palette.files import write_json
    from palette.judging.calibration import FILE, calibrate, column_map, read_labelled
    from palette.judging.registry import judge_named

    names = column_map(columns)
    read = [read_labelled(file, names) for file in files]
    found = calibrate(judge_named(judge), judge, read)
    path = (output or Path("runs") / "calibration") / FILE
    write_json(path, found)
    printer.result(found, show_calibration(found, path))


@app.command()
def train(
    files: Files,
    to: Annotated[Path, typer.Option(help="the file to write")] = Path("runs/judge/trained.safetensors"),
    columns: Columns = "",
    seed: Annotated[int, typer.Option(help="from which folds and exercises are drawn", min=0)] = 0,
    source: Annotated[str | None, typer.Option(help="where the replies come from, for the card")] = None,
    licence: Annotated[str | None, typer.Option(help="their licence, for the card")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a judge on labelled replies; name it trained:PATH in a recipe."""
    printer = printer_of(as_json, quiet)
    from palette.judging.calibration import column_map, read_labelled
    from palette.judging.trained import save_judge
    from palette.judging.training import train

    about = {key: value for key, value in (("source", source), ("licence", licence)) if value}
    names = column_map(columns)
    judge = train([read_labelled(file, names) for file in files], seed, about)
    save_judge(judge, to)
    result: dict[str, Any] = {"judge": judge.fingerprint, "file": str(to), **judge.card}
    chosen = judge.card["chosen"]
    printer.result(
        result,
        lambda console: console.print(
            f"written to {to}; cross-validated: {chosen['cross_validated']}", soft_wrap=True, highlight=False
        ),
    )
