"""What every recipe says of its run: which model and prompts, what is opened, and on what machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from palette.authorisation import Authorisation, authorise
from palette.errors import did_you_mean
from palette.prompts import PromptSources
from palette.settings import FORM, Settings, Thinking

NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*\z"
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "npu", "hpu")
TEXT, MAPPING = f"{FORM}text", f"{FORM}mapping"


def _form(value: object) -> str:
    """How the prompts of a recipe are given: as a text, or as a mapping of sources."""
    return MAPPING if isinstance(value, Mapping | PromptSources) else TEXT


def _device(value: str) -> str:
    """A device by the name that torch has for it; whether it is there is known when a model is loaded."""
    kind, colon, number = value.partition(":")
    if kind not in DEVICES or (colon and not (number.isascii() and number.isdecimal())):
        law = f"a device must be one of {', '.join(DEVICES)}, or one of several, as cuda:1"
        near = did_you_mean("cuda" if "gpu" in value.casefold() else value, DEVICES)
        raise ValueError(f"{law}; {near}" if near else law)
    return value


class RunSettings(Settings):
    """What every recipe says of its run: which model and prompts, what is opened, and on what machine."""

    name: str = Field("recipe", pattern=NAME, description="names the output folder, runs/<name>")
    model: str = Field(
        "organism",
        description="organism, organism/<variant>, a folder, a hub name, a GGUF file, "
        "package:<a Python package that brings one>",
    )
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
        1, ge=1, description="CPU threads of one pass; two passes run at once where there are cores for both"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8", "nf4"] = Field(
        "auto",
        description="precision of the backbone; auto: bfloat16 for a large one where the device has units "
        "for it, else float32; int8 and nf4: its matrices in 8 or 4 bits (bitsandbytes)",
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        "cpu",
        description=f"device of the backbone: {', '.join(DEVICES)}, or one of several, as in cuda:1; "
        "auto: an accelerator if there is one, else cpu",
    )
    device_map: Literal["auto"] | dict[str, str | int] | None = Field(
        None,
        description="where parts of the backbone lie, for one that is larger than its device: auto, or a "
        "device, cpu or disk by module",
    )
    thinking: Thinking = Field(
        "closed",
        description="closed: replies begin behind a closed thinking block; open: as the template has it",
    )
    system: str = Field("", description="a system prompt before every conversation that has none of its own")
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
