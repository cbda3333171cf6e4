"""``python -m tools.organism`` raises the shipped model and its variants again, and prints their figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from palette.processes import Advance
from tools.organism.checkpoints import raise_experts, raise_organism


def main(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="another folder than the package's own")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="raise one variant only; experts, which is not shipped, into a folder")
    ] = None,
) -> None:
    """Raise the shipped model and its variants again, from their seed."""
    if variant == "experts" and output:
        typer.echo(raise_experts(output, bar))
        return
    typer.echo(json.dumps(raise_organism(output, variant, bar), indent=2))


@contextmanager
def bar(title: str, total: int) -> Iterator[Advance]:
    """A progress bar on standard error, gone when it is done."""
    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=total)
        yield lambda count, tokens=0: shown.update(task, advance=count)


if __name__ == "__main__":
    typer.run(main)
