"""The load verb, of Python alone: a measured run with its report, its adapter, and its model on demand."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter
from palette.adapters.mounting import peft_model
from palette.adapters.writing import WEIGHTS
from palette.errors import AdapterError, PromptError, did_you_mean
from palette.processes import Progress, silent
from palette.recipe import Recipe, create_recipe
from palette.reporting.report import REPORT, Report, clean, read_report
from palette.run import Run
from palette.run_settings import RunSettings


@dataclass
class Loaded:
    """What a folder holds: the report, the adapter that it is of (none of a bare backbone), and the run."""

    run: Run[Recipe]
    report: Report
    adapter: Adapter | None

    @property
    def tokenizer(self) -> Any:
        """The backbone's tokenizer, as ``transformers`` has it."""
        return self.run.backbone.tokenizer

    @cached_property
    def model(self) -> Any:
        """The backbone with the adapter on, PEFT's model in evaluation mode, loaded when first asked for."""
        # PEFT edits a model in place: the twin's modules are its own, the weights are not there twice.
        model = self.run.backbone.twin().model
        return model if self.adapter is None else peft_model(model, self.adapter)

    def generate(self, prompt: str, **options: Any) -> str:
        """The reply to one message, greedy and as long as the recipe says; ``options`` are ``generate``'s."""
        import torch

        backbone, model = self.run.backbone, self.model
        ids = torch.tensor([backbone.render([{"role": "user", "content": prompt}])], device=model.device)
        given: dict[str, Any] = {"max_new_tokens": self.run.recipe.reply_tokens, "do_sample": False}
        given |= {"eos_token_id": list(backbone.stops), "pad_token_id": backbone.pad, **options}
        said = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **given)
        reply = said[0, ids.shape[1] :].tolist()
        return backbone.decode([token for token in reply if token not in backbone.stops])


def load(folder: Path | str, adapter: Path | str | None = None, progress: Progress = silent) -> Loaded:
    """The run of a folder; its adapter lies there, or where ``adapter`` says. No model is loaded yet.

    Raises:
        OutputError: if there is no report in the folder.
        AdapterError: if the adapter that the report is of is not there, or it is another one.
        BackboneError: if the backbone is not there.
    """
    folder = Path(folder)
    report, run = run_of(folder, progress)
    found = _adapter(report, folder, adapter)
    if found:
        run.require_backbone(found)
    return Loaded(run, report, found)


def run_of(folder: Path, progress: Progress) -> tuple[Report, Run[Recipe]]:
    """The report in a folder, and the run as its recipe states it.

    Raises:
        OutputError: if there is no report in the folder.
    """
    report = read_report(folder)
    recipe = report.provenance.recipe
    stated = {key: value for key, value in recipe.items() if key in RunSettings.model_fields}
    return report, Run(create_recipe(stated, where=str(folder / REPORT)), folder, progress)


def require_id(run: Run, rows: Collection[str], row_id: str, named: str | None = None) -> None:
    """Returns nothing: a prompt's id, or what it was ``named`` as, is among those of the run's rows.

    Raises:
        PromptError: if it is none; the nearest is told.
    """
    if row_id not in rows:
        raise PromptError(
            "an id must be one of the run's prompts",
            got=clean(repr(named or row_id), 80),
            remedy=did_you_mean(row_id, rows) or "take one that report.json names",
            where=run.folder,
        )


def _adapter(report: Report, folder: Path, given: Path | str | None) -> Adapter | None:
    """The adapter that a report is of; None where it is of the backbone alone."""
    stated = report.provenance.adapter
    if stated is None:
        return None
    path = Path(given or folder)
    missing = given is None and not (path / WEIGHTS).is_file()
    adapter = None if missing else read_adapter(path)
    if adapter is None or adapter.digest != stated:
        raise AdapterError(
            f"the adapter must be the one that the report is of, {stated[:12]}",
            got=adapter.digest[:12] if adapter else "none",
            remedy="give it with --adapter",
            where=path,
        )
    return adapter
