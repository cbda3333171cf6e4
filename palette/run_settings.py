"""What every recipe says of its run, known without a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from palette.authorisation import Authorisation, authorise
from palette.prompts import PromptSources
from palette.settings import FORM, Settings, Thinking

NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*\z"
TEXT, MAPPING = f"{FORM}text", f"{FORM}mapping"


def _form(value: object) -> str:
    """How the prompts of a recipe are given: as a text, or as a mapping of sources."""
    return MAPPING if isinstance(value, Mapping | PromptSources) else TEXT


class RunSettings(Settings):
    """What every recipe says of its run: which model and prompts, what is opened, and on what machine."""

    name: str = Field("recipe", pattern=NAME, description="names the output folder, runs/<name>")
    model: str = Field("organism", description="organism, organism/<variant>, a folder, a hub name")
    prompts: Annotated[
        Annotated[str, Tag(TEXT)] | Annotated[PromptSources, Tag(MAPPING)], Discriminator(_form)
    ] = Field(
        "organism",
        description="organism, organism/categories, a folder of <domain>.jsonl, or sources: as a mapping, or "
        "the path of its YAML",
    )
    authorise: tuple[str, ...] = Field((), description="the domains to open")
    floor: tuple[str, ...] = Field((), description="domains added to the built-in floor")
    reasons: dict[str, str] = Field(
        default_factory=dict, description="why a domain's tier-B rows may be opened, by domain"
    )
    seed: int = Field(0, ge=0, strict=True, description="the seed from which every draw is derived")
    threads: int = Field(
        1, ge=1, description="CPU threads; one is the fastest for models of the organism's size"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="precision of the backbone"
    )
    device: str = Field("cpu", description="torch device of the backbone")
    thinking: Thinking = Field(
        "closed",
        description="closed: replies begin behind a closed thinking block; open: as the template has it",
    )
    keep_replies: bool = Field(
        True,
        description="keep replies in the user's cache folder (PALETTE_CACHE names another), outside the run, "
        "so that none is generated twice",
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="prompts at most, a domain, kind and tier, in every stage (default: each stage's own)",
    )
    reply_tokens: int = Field(128, ge=4, description="tokens of a reply at most")
    floor_tokens: int = Field(
        12,
        ge=4,
        description="tokens of a reply to a floor prompt: no content; more where refusals show later",
    )
    memory_gib: float = Field(4.0, gt=0, description="memory for what is kept instead of run again, in GiB")

    def at_most(self, prompts: int) -> int:
        """A stage's own number of prompts a domain, kind and tier, or ``limit`` where that is less."""
        return min(prompts, self.limit or prompts)

    def authorisation(self, domains: Iterable[str]) -> Authorisation:
        """What is opened among the domains that there are prompts of.

        Raises:
            AuthorisationError: if a domain is on the floor, is not available, or none is given.
        """
        return authorise(self.authorise, domains, floor=self.floor, reasons=self.reasons)
