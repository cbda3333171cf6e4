"""``python -m tools.judge FILE...`` trains a judge on labelled replies; ``make judge`` the shipped one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palette.errors import PaletteError
from palette.judging.calibration import column_map, read_labelled
from tools.judge.training import save_judge, train


def main(
    files: Annotated[list[Path], typer.Argument(help="labelled replies, csv or jsonl", metavar="FILE...")],
    to: Annotated[Path, typer.Option(help="the file to write")] = Path("runs/judge/trained.safetensors"),
    columns: Annotated[str, typer.Option(help="name=column, joined by commas")] = "",
    seed: Annotated[int, typer.Option(help="from which folds and synthetic replies are drawn", min=0)] = 0,
    source: Annotated[str | None, typer.Option(help="where the replies come from, for the card")] = None,
    licence: Annotated[str | None, typer.Option(help="their licence, for the card")] = None,
) -> None:
    """Train a judge on labelled replies; name it trained:PATH in a recipe."""
    about = {key: value for key, value in (("source", source), ("licence", licence)) if value}
    try:
        names = column_map(columns)
        judge = train([read_labelled(file, names) for file in files], seed, about)
        save_judge(judge, to)
    except PaletteError as error:
        typer.echo(f"tools.judge: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"written to {to}; cross-validated: {judge.card['chosen']['cross_validated']}")


if __name__ == "__main__":
    typer.run(main)
