"""A suite as YAML: its measures, each of a kind with options of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from palette.judging.judge import FORMS, JudgeName
from palette.run_settings import NAME, RunSettings
from palette.settings import Settings, dotted, override, read_yaml, settled

PICTURED = ("mmmu", "mmbench")
"""Tasks of a model that sees."""
SUBJECTS = {
    "medical": ("clinical_knowledge", "professional_medicine"),
    "legal": ("international_law", "professional_law"),
    "cybersecurity": ("computer_security",),
    "finance": ("professional_accounting",),
    "chemistry": ("college_chemistry",),
}
"""The MMLU subjects that belong to a professional domain, of those whose files are at hand."""


class Measure(Settings):
    """What every measure has."""

    name: str = Field("", pattern=rf"^\z|{NAME}", description="names its line (default: its kind)")


class OfPrompts(Measure):
    """A measure that reads prompts."""

    prompts: str = Field(
        description="organism, a folder of <domain>.jsonl, or a file of a public set beneath --data"
    )
    layout: str | None = Field(None, alias="schema", description="the schema of a public set")
    columns: dict[str, str] = Field(default_factory=dict, description="the column map of a public set")
    domain: str | None = Field(None, description="the domain to which a public set's rows belong")
    drop_overlaps: bool = Field(False, description="leave out rows of a public set that stand twice")
    domains: tuple[str, ...] = Field((), description="the domains taken (default: all)")
    limit: int = Field(400, ge=1, description="prompts at most, a domain, kind and tier")


class Refusals(OfPrompts):
    """Refusals of restricted prompts that nobody opened, or of the authorised domains; or of benign prompts.

    The first must stay, the second should go, and of the third, many of which look restricted, there
    should be none.
    """

    kind: Literal["refusal_kept", "refusal_relaxed", "over_refusal"]


class Examined(Measure):
    """A measure that lm-eval takes."""

    data: str = Field(description="the folder or file of the task beneath --data")
    shots: int = Field(5, ge=0, description="worked examples before each question")
    chat: bool = Field(False, description="whether the question stands in the chat template")
    limit: int | None = Field(None, ge=1, description="questions at most, a subject (default: all)")
    batch: int = Field(8, ge=1, description="questions in a batch; another size may round differently")
    subjects: tuple[str, ...] = Field((), description="MMLU subjects (default: all in the folder)")


class Utility(Examined):
    """General ability, by lm-eval; with pictures by our own reading of the sets' files."""

    kind: Literal["utility"]
    task: Literal["mmlu", "gsm8k", "mmmu", "mmbench"] = Field(
        description="the task: mmlu or gsm8k, or of a model that sees mmmu or mmbench, which are asked in "
        "the chat template without worked examples"
    )
    reply_tokens: int = Field(256, ge=1, description="tokens of a worked answer at most (gsm8k)")


class Knowledge(Examined):
    """Knowledge in a professional domain: the MMLU subjects that belong to it, by lm-eval."""

    kind: Literal["knowledge"]
    domain: str = Field(description="the domain; its subjects are known for " + ", ".join(SUBJECTS))

    @model_validator(mode="after")
    def _has_subjects(self) -> Knowledge:
        if not self.subjects and self.domain not in SUBJECTS:
            raise ValueError(
                f"knowledge has subjects for {', '.join(SUBJECTS)}, got {self.domain!r}; give subjects"
            )
        return self


class Perplexity(Measure):
    """How well a text, or the reference answers of benign prompts, is foretold."""

    kind: Literal["perplexity"]
    text: str | None = Field(None, description="a UTF-8 text file beneath --data")
    prompts: str | None = Field(None, description="organism or a folder: its benign prompts with answers")
    window: int = Field(256, ge=2, description="tokens of text that are foretold together")
    limit: int = Field(400, ge=1, description="windows, or prompts a domain, at most")

    @model_validator(mode="after")
    def _of_one_thing(self) -> Perplexity:
        if (self.text is None) == (self.prompts is None):
            raise ValueError("perplexity must be of a text or of prompts, and of one of them")
        return self


class Divergence(OfPrompts):
    """KL(base ‖ adapted) on benign prompts, teacher-forced on the backbone's replies."""

    kind: Literal["divergence"]
    limit: int = Field(32, ge=1, description="benign prompts a domain at most")


AnyMeasure = Refusals | Utility | Knowledge | Perplexity | Divergence


class Suite(RunSettings):
    """What is measured, in order, and on what: the keys of a run, and the measures."""

    name: str = Field("suite", pattern=NAME, description="names the output folder, runs/<name>")
    authorise: tuple[str, ...] = Field((), description="the domains opened (default: the adapter's)")
    baseline: str | None = Field(
        None, description="organism, or a folder, from whose train split the backbone's refusals are learned"
    )
    judge: JudgeName = Field("panel", description=f"who judges the replies: {FORMS}")
    measures: tuple[Annotated[AnyMeasure, Field(discriminator="kind")], ...] = Field(
        min_length=1, description="the measures, in order"
    )

    @model_validator(mode="after")
    def _told_apart(self) -> Suite:
        names = [named(one) for one in self.measures]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"measures must have different names, got {twice[0]!r} twice; give each a name")
        return self


def named(one: AnyMeasure) -> str:
    """The name of a measure's line: its own, or its kind."""
    return one.name or one.kind


def load_suite(path: Path, overrides: Iterable[str] = ()) -> Suite:
    """The suite of a YAML file with ``key=value`` overrides; ``measures.0.limit=20`` is such a one.

    Raises:
        RecipeError: if the file cannot be read, or breaks a law; all of them are named at once.
    """
    content: dict[str, Any] = {"name": path.stem, **read_yaml(path, "suite")}
    for one in overrides:
        override(content, one)
    return settled(Suite, content, str(path), known_keys(), "suite")


def known_keys() -> list[str]:
    """The keys of a suite and of every kind of measure."""
    names = [name for name, _ in dotted(Suite)]
    for kind in get_args(AnyMeasure):
        names += [name for name, _ in dotted(kind)]
    return list(dict.fromkeys(names))
