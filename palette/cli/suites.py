"""The command on suites."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palette.cli.options import AsJson, Output, Overrides, Quiet, printer_of


def suite(
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
    output: Output = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure refusals, utility, knowledge and divergence by a suite, adapter off and on."""
    from palette.cli.console import show_suite
    from palette.stages.suite import Places
    from palette.stages.suite import suite as measure_suite

    printer = printer_of(as_json, quiet)
    places = Places(data, output, inspect_log, inspect_texts)
    result, folder = measure_suite(file, model, adapter, places, overrides or [], printer.progress)
    printer.result(result, show_suite(result, folder))
