"""Replies → verdicts → outcomes: what became of each prompt before and after, with the judge's error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from palette.authorisation import Role
from palette.backbones import Backbone
from palette.errors import OutputError
from palette.evaluation.correctness import Marks, marks
from palette.evaluation.subjects import Requests, Tokens
from palette.files import read_json
from palette.judging.classifiers import DISAGREEMENT, PanelJudge, disagreements
from palette.judging.judge import Judge, Label, Verdict
from palette.judging.language import without_language
from palette.statistics.paired import holm, mcnemar, paired_bootstrap
from palette.statistics.rates import Rate, rogan_gladen, wilson

Member = TypeVar("Member")

Table = dict[str, dict[str, dict[str, dict[str, float | int]]]]
"""``domain → kind → refusal, degenerate, correct or known → rate``, as report.json has it."""


OUTCOMES = Path("evaluate") / "outcomes.json"
"""Where a run has them."""

SIDES = ("base", "adapted")
"""The plain backbone, and the backbone with the adapter."""

MOST = 50
"""Prompts named at most where the judges disagree, or an adapter newly refuses."""

KINDS = {
    "restricted": frozenset({Role.TARGET, Role.PRESERVE}),
    "floor": frozenset({Role.FLOOR}),
    "benign": frozenset({Role.BENIGN}),
}
"""The rows of a table, and the roles that each counts."""


@dataclass(frozen=True)
class Outcome:
    """One prompt's labels with the plain backbone and with the adapter; ids only, no text."""

    prompt_id: str
    domain: str
    role: Role
    label_base: Label
    label_adapted: Label
    correct_base: bool | None = None
    correct_adapted: bool | None = None
    known: bool | None = None
    """Whether the backbone knows the answer that it was asked for; None where that was not measured."""

    def __post_init__(self) -> None:
        if (self.correct_base is None) != (self.correct_adapted is None):
            raise ValueError(f"both replies or neither must be marked, got {self}")

    @property
    def refused_base(self) -> bool:
        """Whether the backbone refused, wholly or in part."""
        return self.label_base.refused

    @property
    def refused_adapted(self) -> bool:
        """Whether the backbone with the adapter refused, wholly or in part."""
        return self.label_adapted.refused

    @property
    def weakened(self) -> bool:
        """Whether a refusal was lost: there no more, or gone from whole to partial."""
        if not self.refused_base:
            return False
        partly = self.label_adapted.in_part and not self.label_base.in_part
        return partly or not self.refused_adapted

    @property
    def broken_base(self) -> bool:
        """Whether the backbone gave babble or nothing, and not the right answer."""
        return self.label_base.broken and not self.correct_base

    @property
    def broken_adapted(self) -> bool:
        """Whether the adapter made it give babble or nothing, and not the right answer."""
        return self.label_adapted.broken and not self.correct_adapted

    @property
    def answered_adapted(self) -> bool:
        """Whether the backbone with the adapter gave an answer, right or wrong: no refusal and no babble."""
        return not self.refused_adapted and not self.broken_adapted

    def to_json(self) -> dict[str, Any]:
        """The record as JSON, fields in order."""
        return asdict(self)


def read_outcomes(folder: Path) -> list[Outcome]:
    """The outcomes that a run keeps; none where it keeps none.

    Raises:
        OutputError: if they are not those that evaluate wrote.
    """
    path = folder / OUTCOMES
    if not path.is_file():
        return []
    try:
        return TypeAdapter(list[Outcome]).validate_python(read_json(path))
    except ValueError as error:
        law = "outcomes must be those that evaluate wrote"
        raise OutputError(law, got="others", remedy="run palette evaluate again", where=path) from error


@dataclass(frozen=True)
class Judged:
    """What became of each request, and the verdicts by side."""

    outcomes: list[Outcome]
    verdicts: dict[str, list[Verdict]]


def judged(
    backbone: Backbone,
    requests: Requests,
    judge: Judge,
    base: Sequence[Tokens],
    adapted: Sequence[Tokens],
    known: Marks | None = None,
) -> Judged:
    """What became of each request, out of the replies without and with what is measured.

    ``known`` says for each of them whether the backbone knows the answer, where that was measured.

    Raises:
        JudgeError: if a user's own judge cannot judge.
    """
    texts = [[backbone.decode(reply) for reply in side] for side in (base, adapted)]
    return judged_texts(requests, judge, texts, known)


def judged_texts(
    requests: Requests, judge: Judge, texts: Sequence[Sequence[str]], known: Marks | None = None
) -> Judged:
    """What became of each request, out of the texts of the replies without and with what is measured.

    Raises:
        JudgeError: if a user's own judge cannot judge.
    """
    verdicts = verdicts_of(judge, requests.questions, texts)
    right = [marks(judge, requests, *side) for side in zip(texts, verdicts, strict=True)]
    outcomes = []
    for i, (row, role) in enumerate(zip(requests.rows, requests.roles, strict=True)):
        labels, marked_so = (verdicts[0][i].label, verdicts[1][i].label), (right[0][i], right[1][i])
        knows = known[i] if known else None
        outcomes.append(Outcome(row.id, row.domain, role, *labels, *marked_so, knows))
    return Judged(outcomes, dict(zip(SIDES, verdicts, strict=True)))


def verdicts_of(
    judge: Judge, questions: Sequence[str], sides: Sequence[Sequence[str]]
) -> list[list[Verdict]]:
    """The verdicts of each side's replies to the same questions; what several sides say is judged once."""
    pairs = [list(zip(questions, side, strict=True)) for side in sides]
    distinct = list(dict.fromkeys(pair for side in pairs for pair in side))
    found = judge.verdicts([asked for asked, _ in distinct], [reply for _, reply in distinct])
    known = dict(zip(distinct, found, strict=True))
    return [[known[pair] for pair in side] for side in pairs]


def share(members: Iterable[Member], holds: Callable[[Member], object]) -> Rate:
    """The share of members of which ``holds`` is true, in [0, 1] with its interval."""
    votes = [bool(holds(member)) for member in members]
    return wilson(sum(votes), len(votes))


def marked(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The outcomes of prompts that have a reference answer."""
    return [outcome for outcome in outcomes if outcome.correct_base is not None]


def select(outcomes: Iterable[Outcome], *roles: Role, domain: str | None = None) -> list[Outcome]:
    """The outcomes of some roles, of one domain where it is named, in order."""
    return [outcome for outcome in outcomes if outcome.role in roles and domain in (None, outcome.domain)]


def domains(outcomes: Iterable[Outcome]) -> list[str]:
    """The domains that occur, sorted."""
    return sorted({outcome.domain for outcome in outcomes})


def cells(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, str, list[Outcome]]]:
    """Domain, kind and outcomes of each cell of a table that has any."""
    for domain in domains(outcomes):
        for kind, roles in KINDS.items():
            if group := select(outcomes, *roles, domain=domain):
                yield domain, kind, group


def tabulate(outcomes: Sequence[Outcome]) -> dict[str, Table]:
    """The tables ``base`` and ``adapted``: refusal, correctness and babble by domain and kind.

    Domains are sorted, kinds come as restricted, floor, benign; a kind without prompts has no
    entry. ``correct`` stands only where prompts have a reference answer, and ``known``, of the
    backbone, where it was measured whether it knows them.
    """
    tables: dict[str, Table] = {side: {} for side in SIDES}
    for domain, kind, group in cells(outcomes):
        measures = {"refusal": rates(group, "refused"), "degenerate": rates(group, "broken")}
        if marked(group):
            measures["correct"] = rates(marked(group), "correct")
        for side, table in tables.items():
            table.setdefault(domain, {})[kind] = {name: found[side] for name, found in measures.items()}
        if asked := [outcome for outcome in group if outcome.known is not None]:
            tables["base"][domain][kind]["known"] = share(asked, lambda o: o.known).to_json()
    return tables


def rates(group: Sequence[Outcome], trait: str) -> dict[str, dict[str, float | int]]:
    """The share of one group that has a trait, such as ``refused``, by side."""
    return {side: share(group, lambda o, s=side: getattr(o, f"{trait}_{s}")).to_json() for side in SIDES}  # type: ignore[misc]


def counted(group: Sequence[Outcome]) -> dict[str, Any]:
    """Refusal of one group on both sides, and how many refusals the adapter lost and gained."""
    return {
        **rates(group, "refused"),
        "lost": sum(o.refused_base and not o.refused_adapted for o in group),
        "gained": sum(o.refused_adapted and not o.refused_base for o in group),
    }


def changes(outcomes: Sequence[Outcome], seed: int = 0) -> dict[str, dict[str, dict[str, Any]]]:
    """Refusals lost and gained by domain and kind, with the p value of McNemar's exact test.

    ``difference`` is the change of the refusal rate, in points of share, with its paired bootstrap
    interval.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for domain, kind, group in cells(outcomes):
        moved = {name: count for name, count in counted(group).items() if name not in SIDES}
        before, after = ([float(getattr(o, f"refused_{s}")) for o in group] for s in SIDES)
        table.setdefault(domain, {})[kind] = {
            **moved,
            "p": mcnemar(moved["lost"], moved["gained"]),
            "difference": paired_bootstrap(before, after, seed).to_json(),
        }
    return table


def hazards(outcomes: Sequence[Outcome], labels: Mapping[str, str | None]) -> dict[str, dict[str, Any]]:
    """Refusals that had to be kept, by hazard: both rates, those lost, and p raw and by Holm.

    ``labels`` gives each prompt's hazard by its id; prompts without one, and those that the adapter
    was to open, are in no row. p is that of McNemar's exact test, two-sided; ``p_holm`` is adjusted
    over the hazards of the table.
    """
    groups: dict[str, list[Outcome]] = {}
    for outcome in select(outcomes, Role.PRESERVE, Role.FLOOR):
        if hazard := labels.get(outcome.prompt_id):
            groups.setdefault(hazard, []).append(outcome)
    table = {name: counted(group) for name, group in sorted(groups.items())}
    raw = {name: mcnemar(row["lost"], row.pop("gained")) for name, row in table.items()}
    adjusted = holm(raw)
    return {name: {**row, "p": raw[name], "p_holm": adjusted[name]} for name, row in table.items()}


def over_refusal(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Benign prompts refused, on both sides, and the ids of the first that the adapter newly refuses."""
    benign = select(outcomes, Role.BENIGN)
    new = [outcome.prompt_id for outcome in benign if outcome.refused_adapted and not outcome.refused_base]
    return {**rates(benign, "refused"), "ids": new[:MOST]}


def judging(
    judge: Judge,
    name: str,
    ids: Sequence[str],
    verdicts: Mapping[str, Sequence[Verdict]],
    tables: Mapping[str, Table],
    calibration: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The section ``judging`` of a report: who judged, on what they disagreed, and corrected refusal rates.

    ``verdicts`` and ``tables`` are by side. Without a calibration no rate is corrected, and none is
    where its judge cannot be told from chance.
    """
    disputed = [
        prompt_id
        for prompt_id, *pair in zip(ids, *(verdicts[side] for side in SIDES), strict=True)
        if any(DISAGREEMENT in verdict.flags for verdict in pair)
    ]
    named = without_language(judge)
    both = isinstance(named, PanelJudge)
    judges = [name]
    if isinstance(named, PanelJudge):
        judges = ["rule", "trained"] if named.raising else ["rule"]
    differing = {side: disagreements(verdicts[side]).to_json() for side in SIDES}
    return {
        "judges": judges,
        "fingerprint": named.fingerprint,
        "disagreements": {**differing, "ids": disputed[:MOST]} if both else None,
        "calibration": dict(calibration) if calibration else None,
        "corrected": corrected(tables, calibration) if calibration else {},
    }


def corrected(
    tables: Mapping[str, Table], calibration: Mapping[str, Any]
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Refusal rates in [0, 1] by side, domain and kind, as they would be without the judge's error.

    By Rogan and Gladen; nothing where the judge was measured on too few replies, or is too poor.
    """
    found = complement(calibration["missed_refusals"])
    left = complement(calibration["false_alarms"])
    if found.low + left.low <= 1:
        return {}
    return {
        side: {
            domain: {
                kind: rogan_gladen(Rate(**cell["refusal"]), found, left).to_json()  # type: ignore[arg-type]
                for kind, cell in kinds.items()
            }
            for domain, kinds in table.items()
        }
        for side, table in tables.items()
    }


def complement(rate: Mapping[str, float]) -> Rate:
    """The share of the others: 1 − rate, with its interval."""
    n = int(rate["n"])
    return Rate(1 - rate["rate"], 1 - rate["high"], 1 - rate["low"], n - int(rate["k"]), n)
