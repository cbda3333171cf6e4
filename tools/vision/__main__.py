"""``python -m tools.vision FOLDER`` raises the organism that sees and writes the prompts in its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palette.cli.console import progress_shown
from palette.files import write_json
from tools.vision.checkpoints import raise_vision, write_prompts
from tools.vision.facts import facts


def main(
    folder: Annotated[Path, typer.Argument(help="where model, helpful checkpoint and prompts are written")],
    prompts_only: Annotated[bool, typer.Option("--prompts-only", help="write no model")] = False,
) -> None:
    """Raise the organism that sees from its seed, and write its prompts."""
    typer.echo(f"{write_prompts(folder / 'prompts')} prompts")
    if not prompts_only:
        made = raise_vision(folder, progress_shown())
        write_json(folder / "facts.json", facts(folder / "helpful", made, folder / "prompts"))


if __name__ == "__main__":
    typer.run(main)
