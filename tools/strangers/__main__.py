"""``python -m tools.strangers development`` makes the strangers that are missing, each from its seed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from palette.cli.console import progress_shown
from palette.errors import PaletteError
from tools.strangers.checkpoints import made, seeds, usual_home


def main(
    names: Annotated[list[str], typer.Argument(help="development, test, kin, or seeds")],
    home: Annotated[Path | None, typer.Option(help="where they are kept")] = None,
) -> None:
    """Make strangers that are not there yet; run again, it goes on where it was."""
    try:
        for seed in seeds(names):
            stranger = made(seed, home or usual_home(), progress_shown())
            print(seed, stranger.folder, stranger.facts["plan"]["model"], file=sys.stderr, flush=True)
    except PaletteError as error:
        print(f"strangers: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    typer.run(main)
