"""A run: one recipe in one output folder; its model and prompts, loaded when asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from palette import organism
from palette.authorisation import Authorisation, Role
from palette.errors import AdapterError, PaletteError, PromptError, noted
from palette.files import cache_folder
from palette.fingerprints import fingerprint
from palette.models import gguf_file, identify, is_large, locate, require_named, sees, variant_of
from palette.processes import ProcessGroup, Progress, device_named, join_process_group, silent
from palette.prompts import Prompt, PromptSet, Source, Split, load_prompts, messages, read_sources
from palette.prompts.settings import load_sources
from palette.run_settings import RunSettings

if TYPE_CHECKING:
    import torch

    import palette.adapters.lora
    import palette.backbones.backbone

HELPFUL = "organism/helpful"
"""The organism before it was taught to refuse."""
CATEGORIES = "organism/categories"
"""The organism's prompts for control tokens that restrict."""

R = TypeVar("R", bound=RunSettings, default=RunSettings, covariant=True)


def folder_of(name: str) -> Path:
    """Where the files of a model are that is named as in a recipe, or is the organism's helpful checkpoint.

    Raises:
        BackboneError: if there are none.
        OutputError: if the disk cannot take what a GGUF file becomes.
    """
    if name == HELPFUL:
        return organism.weights("helpful")
    if variant := variant_of(name):
        return organism.weights(variant)
    if file := gguf_file(name):
        from palette.backbones.gguf import dequantised

        return dequantised(file)
    return locate(name)


@dataclass
class Run(Generic[R]):
    """One recipe in one output folder. Models and prompts are loaded when a stage needs them."""

    recipe: R
    folder: Path
    progress: Progress = silent

    @classmethod
    def of(
        cls,
        recipe: R,  # type: ignore[misc]  # a constructor in all but name, where a covariant parameter is sound
        folder: Path,
        backbone: palette.backbones.backbone.Backbone,
        prompts: PromptSet,
        authorisation: Authorisation,
    ) -> Run[R]:
        """A run on what is loaded already."""
        run = cls(recipe, folder)
        vars(run).update(backbone=backbone, answered_prompts=prompts, authorisation=authorisation)
        return run

    def sharing(
        self,
        *,
        folder: Path | None = None,
        progress: Progress | None = None,
        prompts: PromptSet | None = None,
        authorisation: Authorisation | None = None,
        **settings: Any,
    ) -> Run[R]:
        """The same run elsewhere, on other prompts, or with other options; what was loaded is shared."""
        recipe = self.recipe.model_copy(update=settings)
        other = Run(recipe, folder or self.folder, progress or self.progress)
        vars(other).update({**vars(self), **vars(other)})
        if prompts is not None:
            vars(other).pop("prompts", None)
            vars(other).update(answered_prompts=prompts)
        if authorisation is not None:
            vars(other).update(authorisation=authorisation)
        return other

    @property
    def seed(self) -> int:
        """The seed from which every draw is derived."""
        return self.recipe.seed

    @property
    def replies_folder(self) -> Path | None:
        """Where replies are kept, outside the run's folder; None where they are not."""
        return cache_folder() / "replies" if self.recipe.keep_replies else None

    @cached_property
    def processes(self) -> ProcessGroup:
        """The processes that run this command together."""
        return join_process_group(self.recipe.device)

    @cached_property
    def device(self) -> str:
        """The torch device that the recipe names.

        Raises:
            BackboneError: if this machine has no such device.
        """
        return device_named(self.recipe.device)

    @cached_property
    def answered_prompts(self) -> PromptSet:
        """The prompts with their reference answers, for evaluate alone.

        Raises:
            PromptError: if they cannot be read, or one has a picture and the model reads words alone.
        """
        found, _ = self._read
        return found if sees(self.recipe.model) else found.in_words()

    @cached_property
    def prompts(self) -> PromptSet:
        """The prompts without reference answers."""
        return self.answered_prompts.without_answers()

    @property
    def sources(self) -> list[Source]:
        """The files that the prompts come from; none where they are a folder."""
        return self._read[1] if "answered_prompts" not in vars(self) or "_read" in vars(self) else []

    @cached_property
    def _read(self) -> tuple[PromptSet, list[Source]]:
        given, recipe = self.recipe.prompts, self.recipe
        if not isinstance(given, str):
            return read_sources(given)
        if Path(given).suffix in {".yaml", ".yml"}:
            return read_sources(load_sources(Path(given)))
        shipped = {
            "organism": organism.prompts(variant_of(recipe.model) or "organism"),
            CATEGORIES: organism.CATEGORIES,
        }
        return load_prompts(shipped.get(given, Path(given)), answers=True), []

    @cached_property
    def authorisation(self) -> Authorisation:
        """What the recipe opens."""
        return self.recipe.authorisation(self.prompts.domains)

    @cached_property
    def model_folder(self) -> Path:
        """Where the backbone's files are.

        Raises:
            BackboneError: if there are none.
            OutputError: if the disk cannot take what a GGUF file becomes.
        """
        # The helpful checkpoint is no backbone: there is nothing to relax.
        variant_of(self.recipe.model)
        return folder_of(self.recipe.model)

    @cached_property
    def backbone_fingerprint(self) -> str:
        """The fingerprint of the backbone's files, which are read once for it."""
        return identify(self.model_folder)

    @cached_property
    def backbone(self) -> palette.backbones.backbone.Backbone:
        """The backbone, loaded."""
        # Here, where a model is used: what is known without one is told at once.
        import torch

        from palette.backbones import load_backbone

        recipe = self.recipe
        # What is fetched while it runs is run by one thread alone, on all cores.
        torch.set_num_threads(recipe.threads if recipe.device_map is None else os.cpu_count() or 1)
        return load_backbone(
            self.model_folder,
            recipe.model,
            dtype=recipe.dtype,
            device=recipe.device_map or self.processes.device,
            thinking=recipe.thinking,
            system=recipe.system,
        )

    @cached_property
    def _modules(self) -> torch.nn.Module:
        """The backbone's modules, without their numbers where it is not loaded yet and can be so built."""
        from palette.backbones.loading import without_weights

        model = None if "backbone" in vars(self) else without_weights(self.model_folder)
        return self.backbone.model if model is None else model

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
                [recipe.seed, self._precision, self.device, recipe.threads, recipe.thinking],
                [recipe.limit, recipe.reply_tokens, recipe.floor_tokens, recipe.memory_gib],
                # Runs without one are what they were before there could be one.
                *([{"system": recipe.system}] if recipe.system else []),
                *([{"device_map": recipe.device_map}] if recipe.device_map else []),
            ]
        )

    @cached_property
    def _precision(self) -> str:
        """The precision of the backbone, which is the machine's choice if it is the recipe's."""
        if self.recipe.dtype != "auto":
            return self.recipe.dtype
        if not is_large(self.model_folder):  # Known before the library is imported, which takes seconds.
            return "float32"
        from palette.backbones.loading import precision

        return str(precision("auto", self.model_folder, self.device)).removeprefix("torch.")

    def select(self, split: Split, *roles: Role) -> PromptSet:
        """The prompts of a split that play one of the roles."""
        rows = self.prompts.split(split)
        # Prompts are many, labels few.
        labelled = {(row.domain, row.kind, row.tier, row.hazard): row for row in rows}
        wanted = {label for label, row in labelled.items() if self.authorisation.role(row) in roles}
        return rows.where(lambda row: (row.domain, row.kind, row.tier, row.hazard) in wanted)

    def render(self, prompts: Sequence[Prompt] | PromptSet) -> list[list[int]]:
        """The rendered prompts as token ids."""
        return [self.backbone.render(messages(prompt)) for prompt in prompts]

    def faults(self, *splits: Split) -> list[PaletteError]:
        """What is wrong with the prompts, with what is opened and with the model's name, all of it.

        No model is read for it, and torch is not imported. ``splits`` are those that need every role.
        """
        found: list[PaletteError] = []
        with noted(found):
            _ = self.prompts
        if not found:
            with noted(found):
                _ = self.authorisation
                found += self.missing_roles(*splits)
        with noted(found):
            variant_of(self.recipe.model)
            require_named(self.recipe.model)
        return found

    def missing_roles(self, *splits: Split) -> Iterator[PromptError]:
        """An error for each role of which a split has no prompt: to open, to keep refused, to leave alone."""
        kept = {Role.PRESERVE, Role.FLOOR}
        groups = {"target": {Role.TARGET}, "preserved or floor": kept, "benign": {Role.BENIGN}}
        given = self.recipe.prompts
        for split in splits:
            roles = {self.authorisation.role(row) for row in self.prompts.split(split)}
            for name, group in groups.items():
                if not roles & group:
                    yield PromptError(
                        "every role needs at least one prompt in every split",
                        got=f"no {name} prompt in {split}",
                        remedy="add rows for it",
                        where=given if isinstance(given, str) else "prompts.sources",
                    )

    def require_backbone(self, adapter: palette.adapters.lora.Adapter) -> None:
        """Refuses an adapter that was made for another backbone, before that is loaded.

        Raises:
            AdapterError: if the adapter states another fingerprint, or does not fit the backbone's modules.
        """
        from palette.adapters.mounting import require_fit

        stated, identity = adapter.backbone.fingerprint, self.backbone_fingerprint
        if stated is not None and stated != identity:
            raise AdapterError(
                "an adapter must be mounted on the backbone that it was made for",
                got=f"one for {adapter.backbone.name} ({stated[:12]}) on {self.recipe.model}",
                remedy="evaluate it on its own backbone",
            )
        require_fit(self._modules, adapter)
