"""``python -m tools.vision FOLDER`` raises an organism that sees and writes the prompts in its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palette.cli.console import progress_shown
from tools.strangers.checkpoints import made, usual_home
from tools.vision.checkpoints import first, grown, of, write_prompts


def main(
    folder: Annotated[Path, typer.Argument(help="where model, helpful checkpoint and prompts are written")],
    prompts_only: Annotated[bool, typer.Option("--prompts-only", help="write no model")] = False,
    seed: Annotated[
        int | None, typer.Option(help="of a stranger that is to see, in place of the first")
    ] = None,
) -> None:
    """Raise the organism that sees from its seed, or a stranger that does, and write its prompts."""
    sketch = first() if seed is None else of(made(seed, usual_home(), progress_shown()))
    if prompts_only:
        typer.echo(f"{write_prompts(folder / 'prompts', sketch.matter)} prompts")
    else:
        typer.echo(grown(sketch, folder, progress_shown()))


if __name__ == "__main__":
    typer.run(main)
