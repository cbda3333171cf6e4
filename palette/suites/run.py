"""A suite's run: a backbone with the adapter off and on, the judge, the files; and what measures found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from palette import organism
from palette.adapters.lora import Adapter
from palette.authorisation import FLOOR, Authorisation, authorise
from palette.errors import OutputError, PaletteError, PromptError
from palette.evaluation.baseline import baseline_replies
from palette.evaluation.outcomes import SIDES
from palette.evaluation.subjects import Subject
from palette.files import read_json
from palette.judging.judge import Judge, judge_named
from palette.models import sees
from palette.prompts import PromptSet, load_prompts
from palette.prompts.sources import Source, load_source
from palette.run import Run
from palette.statistics.paired import mcnemar
from palette.statistics.rates import Rate
from palette.suites.schema import OfPrompts, Suite

SUITE_FORMAT = "palette-suite/1"

Figures = dict[str, Any]
"""By the name of a figure: a rate with its interval, or a number."""


@dataclass(frozen=True)
class Item:
    """A prompt or a question and what came of it on each side; no text."""

    id: str
    digest: str
    """SHA-256 of the prompt, or of the question with its worked examples."""
    outcomes: tuple[str, ...]
    """The label or the answer on each side: the backbone's, and the adapter's if there is one."""
    counted: tuple[bool, ...]
    """Whether it was refused, or right, on each side."""
    expected: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as JSON."""
        return {"id": self.id, "digest": self.digest, **dict(zip(SIDES, self.outcomes, strict=False))}


@dataclass(frozen=True)
class Origin:
    """A file that somebody else made, and how many rows of it there are."""

    name: str
    digest: str
    """SHA-256 of the file, or of a folder's files."""
    licence: str
    source: str
    rows: int

    @classmethod
    def of(cls, source: Source) -> Origin:
        """The origin of a public set of prompts."""
        return cls(source.name, source.digest, source.licence, source.origin, source.rows)


@dataclass(frozen=True)
class Exchanges:
    """What was asked and replied, in memory only: the prompts' texts and each side's replies."""

    prompts: Sequence[str]
    replies: Sequence[Sequence[str]]
    benign: bool

    def __repr__(self) -> str:
        """How much was said, and nothing of it."""
        return f"Exchanges({len(self.prompts)} prompts)"


@dataclass(frozen=True)
class MeasureResult:
    """One measure of a suite."""

    name: str
    kind: str
    source: Origin | None
    n: int
    sides: Sequence[Figures]
    """The figures of the backbone, and of the adapter if there is one."""
    seconds: float = 0.0
    items: Sequence[Item] = ()
    change: Mapping[str, Any] | None = None
    command: str | None = None
    """lm-eval's own command for the same questions."""
    exchanges: Exchanges | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The line of ``suites`` in ``palette-report/1``."""
        base, *rest = (
            {name: value.to_json() if isinstance(value, Rate) else value for name, value in figures.items()}
            for figures in self.sides
        )
        return {
            "name": self.name,
            "kind": self.kind,
            "source": None if self.source is None else asdict(self.source),
            "n": self.n,
            "base": base,
            "adapted": rest[0] if rest else {},
            "change": None if self.change is None else dict(self.change),
            "seconds": round(self.seconds, 3),
        }


def changed(items: Sequence[Item]) -> dict[str, Any] | None:
    """What was lost and gained from backbone to adapter, with McNemar's exact p; None without an adapter."""
    if not items or len(items[0].counted) < 2:
        return None
    lost = sum(one.counted[0] and not one.counted[1] for one in items)
    gained = sum(one.counted[1] and not one.counted[0] for one in items)
    return {"p": mcnemar(lost, gained), "lost": lost, "gained": gained}


EXTRAS = {
    "lm_eval": ("utility and knowledge are measured by lm-eval", "eval"),
    "inspect_ai": ("a suite is run in inspect-ai by that library", "inspect"),
}
"""What the libraries of extras are for, and the extras."""


def require_extra(module: str) -> None:
    """Returns nothing; passes if a library of ``EXTRAS`` is installed.

    Raises:
        PaletteError: if it is not.
    """
    try:
        import_module(module)
    except ImportError as error:
        use, extra = EXTRAS[module]
        raise PaletteError(
            use, got="an environment without it", remedy=f"pip install palette-llm[{extra}]"
        ) from error


def included(paths: Sequence[Path], measured: Mapping[str, str | None]) -> dict[str, Any]:
    """The sections ``suites`` and ``sources`` of a report out of suite results of what it measures.

    ``measured`` has the fingerprint of the ``backbone`` and the digest of the ``adapter``, None without
    one; what it leaves out is not compared.

    Raises:
        OutputError: if a file is missing, no suite's result, or one of another model or adapter.
    """
    suites: list[Any] = []
    sources: dict[str, Any] = {}
    for path in paths:
        held = read_json(path)
        if not isinstance(held, dict) or held.get("format") != SUITE_FORMAT:
            raise OutputError(
                f"a suite's result must be a {SUITE_FORMAT} file",
                got="another file",
                remedy="write one with palette suite",
                where=path,
            )
        stated = {"backbone": held["model"]["fingerprint"], "adapter": held["adapter"]}
        if other := [name for name, digest in measured.items() if stated[name] != digest]:
            raise OutputError(
                "a report includes suites of its own backbone and adapter",
                got=f"one of another {' and another '.join(other)}",
                remedy="measure it again with palette suite",
                where=path,
            )
        suites += held["suites"]
        sources |= {source["digest"]: source for source in held["sources"]}
    return {"suites": suites, "sources": list(sources.values())}


T = TypeVar("T")


@dataclass
class SuiteRun(Run[Suite]):
    """A run whose recipe is a suite; every measure is a function of it."""

    adapter: Adapter | None = None
    data: Path = Path()
    """The folder beneath which the suite's files lie."""

    @cached_property
    def authorisation(self) -> Authorisation:
        """What the suite takes for opened: its own ``authorise``, or else what the adapter opens.

        Raises:
            AuthorisationError: if that is on the floor.
        """
        reasons = self.recipe.reasons
        domains = self.recipe.authorise or (self.adapter.domains if self.adapter else ())
        if not domains:
            return Authorisation((), FLOOR.extended(self.recipe.floor), dict(reasons))
        known = [*domains, *reasons, *self.recipe.floor]
        return authorise(domains, known, floor=self.recipe.floor, reasons=reasons)

    @property
    def subjects(self) -> list[Subject]:
        """Whom is asked: the backbone, and with an adapter the backbone with it."""
        alone = Subject(self.backbone)
        return [alone] if self.adapter is None else [alone, Subject(self.backbone, self.adapter)]

    def each(self, read: Callable[[], T]) -> list[T]:
        """What ``read`` gives with the adapter off, and then with it on if there is one."""
        values = []
        for subject in self.subjects:
            with subject.mounted():
                values.append(read())
        return values

    @property
    def judge(self) -> Judge:
        """The judge, which knows the backbone's own refusal prefixes where the suite has a baseline."""
        return self._judging[0]

    @property
    def reply_floor_tokens(self) -> int:
        """Tokens of a reply to the floor: what the suite says, or more where refusals show later."""
        return max(self.recipe.floor_tokens, self._judging[1])

    @cached_property
    def _judging(self) -> tuple[Judge, int]:
        if self.recipe.baseline is None:
            return judge_named(self.recipe.judge), 0
        prompts = load_prompts(self.place(self.recipe.baseline))
        every = tuple(domain for domain in prompts.domains if not FLOOR.holds(domain, None, None))
        whole = Run.of(self.recipe, self.folder, self.backbone, prompts, Authorisation(every))
        baseline = baseline_replies(whole.sharing(progress=self.progress))
        return judge_named(self.recipe.judge, baseline.judge.prefixes), baseline.floor_tokens

    def locate(self, name: str) -> Path:
        """The file or folder of a suite's data.

        Raises:
            PromptError: if there is none.
        """
        path = self.data / Path(name).expanduser()
        if not path.exists():
            raise PromptError(
                "a suite's data must exist",
                got=f"nothing at {name}",
                remedy="give the folder in which it lies with --data",
                where=path,
            )
        return path

    def place(self, prompts: str) -> Path:
        """The folder or file of prompts; ``organism`` is the world of the shipped model.

        Raises:
            PromptError: if there is none.
        """
        if prompts != "organism":
            return self.locate(prompts)
        variant = self.recipe.model.removeprefix("organism/")
        return organism.prompts(variant if variant in organism.VARIANTS else "organism")

    def read(self, measure: OfPrompts) -> tuple[PromptSet, Origin | None]:
        """The prompts of a measure with their reference answers, and the public set they come from.

        Of a folder it is the test split; a public set is there to be tested on as a whole.

        Raises:
            PromptError: if they cannot be read, or one has a picture and the model reads words alone.
        """
        path, origin = self.place(measure.prompts), None
        if path.is_dir():
            prompts = load_prompts(path, answers=True).split("test")
        else:
            keys = measure.model_dump(include={"columns", "domain", "drop_overlaps"})
            source = load_source(path, measure.layout, **keys)
            prompts, origin = source.prompts, Origin.of(source)
        if measure.domains:
            prompts = prompts.where(lambda row: row.domain in measure.domains)
        return self.shown(prompts), origin

    def shown(self, prompts: PromptSet) -> PromptSet:
        """The prompts, if the model can be asked them.

        Raises:
            PromptError: if one is asked with a picture, and the model reads words alone.
        """
        return prompts if sees(self.recipe.model) else prompts.in_words()
