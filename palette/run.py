"""A run: one recipe in one output folder, and what its stages work on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch

from palette import organism
from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter
from palette.authorisation import Authorisation, Role, authorise
from palette.backbones import Backbone, load_backbone, locate
from palette.backbones.loading import identify
from palette.errors import AdapterError, BackboneError, PromptError
from palette.evaluation.reply_cache import usual_folder
from palette.fingerprints import fingerprint
from palette.internalise import ProcessGroup, join_process_group
from palette.prompts import PromptSet, PromptSources, Source, load_prompts, read_sources
from palette.recipe import Recipe, load_sources
from palette.stages.assignment import Assignment, Progress, silent

CATEGORIES = "organism/categories"
"""The organism's prompts for control tokens that restrict."""

KEPT = {Role.PRESERVE, Role.FLOOR}


@dataclass
class Run:
    """One recipe in one output folder. Models and prompts are loaded when a stage needs them."""

    recipe: Recipe
    folder: Path
    progress: Progress = silent

    @cached_property
    def processes(self) -> ProcessGroup:
        """The processes that run this command together."""
        return join_process_group(self.recipe.device)

    @cached_property
    def prompts(self) -> PromptSet:
        """The prompts, with reference answers; only evaluate is given those.

        Raises:
            PromptError: if they cannot be read, or one is asked with an image.
        """
        return self._read[0].in_words()

    @property
    def sources(self) -> list[Source]:
        """The files that the prompts come from; none where they are a folder."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[PromptSet, list[Source]]:
        given, recipe = self.recipe.prompts, self.recipe
        if isinstance(given, PromptSources):
            return read_sources(given)
        if Path(given).suffix in {".yaml", ".yml"}:
            return read_sources(load_sources(Path(given)))
        shipped = {
            "organism": organism.prompts(_variant(recipe.model) or "organism"),
            CATEGORIES: organism.CATEGORIES,
        }
        return load_prompts(shipped.get(given, Path(given)), answers=True), []

    @cached_property
    def authorisation(self) -> Authorisation:
        """What the recipe opens."""
        recipe = self.recipe
        return authorise(recipe.authorise, self.prompts.domains, floor=recipe.floor, reasons=recipe.reasons)

    @cached_property
    def model_folder(self) -> Path:
        """Where the backbone's files are."""
        return locate_model(self.recipe.model)

    @cached_property
    def backbone_fingerprint(self) -> str:
        """The fingerprint of the backbone's files, which are read once for it."""
        return identify(self.model_folder)

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone, loaded."""
        recipe = self.recipe
        torch.set_num_threads(recipe.threads)
        return load_backbone(
            self.model_folder,
            recipe.model,
            dtype=recipe.dtype,
            device=self.processes.device,
            thinking=recipe.thinking,
        )

    @cached_property
    def upper_bound(self) -> Backbone | None:
        """The helpful checkpoint, for the organism only."""
        if self.recipe.model != "organism":
            return None
        return load_backbone(organism.weights("helpful"), "organism/helpful")

    @cached_property
    def beside(self) -> list[Adapter]:
        """The adapters beside which the run's own is trained, in the recipe's order.

        Raises:
            AdapterError: if one is of another backbone, or of a domain that the run opens itself.
        """
        found = [read_adapter(path) for path in self.recipe.internalise.beside]
        for path, adapter in zip(self.recipe.internalise.beside, found, strict=True):
            self.require_backbone(adapter)
            if shared := sorted({*adapter.domains} & {*self.authorisation.domains}):
                raise AdapterError(
                    "an adapter is trained beside those of other domains",
                    got=f"one of {', '.join(shared)} at {path}",
                    remedy="leave it out",
                    where="internalise.beside",
                )
        return found

    @cached_property
    def identity(self) -> str:
        """The fingerprint of what every stage of the run depends on."""
        recipe, authorisation = self.recipe, self.authorisation
        return fingerprint(
            [
                version("palette-llm"),
                self.backbone_fingerprint,
                self.prompts.fingerprint,
                [authorisation.domains, authorisation.floor.digest, authorisation.reasons],
                [recipe.seed, recipe.dtype, recipe.device, recipe.threads, recipe.thinking],
            ]
        )

    def assignment(self, *, answers: bool = False) -> Assignment:
        """What a stage works on."""
        prompts = self.prompts if answers else self.prompts.without_answers()
        return Assignment(
            self.backbone,
            prompts,
            self.authorisation,
            self.folder,
            self.recipe.seed,
            self.progress,
            self.processes,
            usual_folder() if self.recipe.keep_replies else None,
        )

    def require_roles(self) -> None:
        """Checks that every split has prompts to open, to keep refused, and to leave alone.

        Raises:
            PromptError: naming the role and the split that lack one.
        """
        for split in ("train", "validation", self.recipe.evaluate.split):
            roles = {self.authorisation.role(row) for row in self.prompts.split(split)}
            groups = {"target": {Role.TARGET}, "preserved or floor": KEPT, "benign": {Role.BENIGN}}
            for name, group in groups.items():
                if not roles & group:
                    raise PromptError(
                        "every role needs at least one prompt in every split",
                        got=f"no {name} prompt in {split}",
                        remedy="add rows for it",
                        where=self.recipe.prompts
                        if isinstance(self.recipe.prompts, str)
                        else "prompts.sources",
                    )

    def require_backbone(self, adapter: Adapter) -> None:
        """Refuses an adapter that was made for another backbone.

        Raises:
            AdapterError: if the adapter states another fingerprint.
        """
        stated, identity = adapter.backbone.fingerprint, self.backbone_fingerprint
        if stated is not None and stated != identity:
            raise AdapterError(
                "an adapter must be mounted on the backbone that it was made for",
                got=f"one for {adapter.backbone.name} ({stated[:12]}) on {self.recipe.model}",
                remedy="evaluate it on its own backbone",
            )


def locate_model(name: str) -> Path:
    """The folder of a model: a shipped variant of the organism, a local folder, or a hub name.

    Raises:
        BackboneError: if there is none.
    """
    variant = _variant(name)
    return organism.weights(variant) if variant else locate(name)


def _variant(name: str) -> str | None:
    """The shipped checkpoint that a model's name stands for, or None for any other model."""
    root, _, variant = name.partition("/")
    if root != "organism" or Path(name).is_dir():
        return None
    choices = [known for known in organism.VARIANTS if known != "helpful"]
    if (variant or "organism") not in choices:
        raise BackboneError(f"organism's variants are {', '.join(choices)}", got=repr(variant))
    return variant or "organism"
