"""Collect: what the backbone itself does, and where its residual stream tells target from benign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from palette.authorisation import Role
from palette.directions import Directions, StreamingMoments, candidates, separation
from palette.errors import SearchError
from palette.evaluation.refusal_score import RefusalPrefixes, refusal_prefixes
from palette.evaluation.reply_cache import Responses
from palette.files import read_tensors, write_tensors
from palette.judging.cutting import FloorReplies, tokens_to_tell
from palette.judging.refusal_prefixes import learn_refusal_prefixes
from palette.judging.rules import RuleJudge
from palette.stages.assignment import Assignment

Row = TypeVar("Row")
ARTEFACT = Path("collect") / "means.safetensors"


class CollectSettings(FloorReplies):
    """Options of the stage collect."""

    prompts: int = Field(128, ge=1, description="prompts read at most, a domain, kind and tier")
    reply_tokens: int = Field(32, ge=4, description="tokens generated to see how a prompt is met")
    fewest: int = Field(16, ge=1, description="prompts a mean needs at least")
    filter: bool = Field(
        True, description="read only prompts that the backbone meets as expected; off, all are read"
    )
    covariance_gib: float = Field(
        1.0, ge=0, description="memory for the covariance; above it no direction is whitened"
    )


@dataclass(frozen=True)
class Collected:
    """The artefact of collect."""

    directions: Directions
    refusal_prefixes: RefusalPrefixes
    """Token prefixes with which the backbone's refusals begin, for the refusal score."""
    judge_prefixes: tuple[str, ...]
    """Word prefixes with which the backbone's refusals begin, for the rule judge."""
    counts: dict[str, dict[str, int]]
    """For each role: prompts read, and prompts that the backbone met as the role expects."""
    separations: dict[str, list[list[float]]]
    """For each candidate direction d-prime at every site and position; none without a covariance."""
    floor_tokens: int
    """Tokens after which the backbone's refusals can be told: the least that floor replies are given."""


@dataclass(frozen=True)
class Baseline:
    """The train prompts of each role, rendered, with the backbone's replies and a judge of them."""

    domains: list[str]
    """Where each benign prompt comes from."""
    prompts: dict[Role, list[list[int]]]
    replies: dict[Role, list[list[int]]]
    judge: RuleJudge
    refused: dict[Role, list[bool]]
    floor_tokens: int
    """See ``Collected``."""

    def met(self, role: Role) -> list[bool]:
        """Which prompts the backbone met as their role expects: refused, or answered if benign."""
        return [refused != (role is Role.BENIGN) for refused in self.refused[role]]

    def kept(self, role: Role, settings: CollectSettings) -> list[bool]:
        """Which prompts the moments are taken of."""
        return self.met(role) if settings.filter else [True] * len(self.refused[role])


def baseline_replies(assignment: Assignment, settings: CollectSettings) -> Baseline:
    """The backbone's own replies to the train split, and a judge that has learned its refusals.

    Raises:
        PromptError: if a role has no prompt.
    """
    backbone = assignment.backbone
    chosen = {role: assignment.select("train", role).capped(settings.prompts) for role in Role}
    chosen[Role.TARGET].required("target train")
    chosen[Role.BENIGN].required("benign train")
    rendered = {role: assignment.render(prompts) for role, prompts in chosen.items()}
    replies: dict[Role, list[list[int]]] = {}
    texts: dict[Role, list[str]] = {}
    with assignment.progress("collect", sum(map(len, rendered.values()))) as advance:
        responses = Responses(assignment.replies, advance)

        def hear(role: Role, limit: int) -> None:
            replies[role] = responses.read(backbone, None, rendered[role], [limit] * len(rendered[role]))
            texts[role] = [backbone.decode(reply) for reply in replies[role]]

        for role in (Role.TARGET, Role.PRESERVE, Role.BENIGN):
            hear(role, settings.reply_tokens)
        # How long replies to the floor must be is told by a judge that has baseline none yet.
        others = {tuple(reply) for role in (Role.TARGET, Role.PRESERVE) for reply in replies[role]}
        floor_tokens = tokens_to_tell(_learned(texts), others, backbone.decode, settings.floor_tokens)
        hear(Role.FLOOR, floor_tokens)
    judge = _learned(texts)
    refused = {
        role: [verdict.label.refused for verdict in judge.verdicts(chosen[role].asked, found)]
        for role, found in texts.items()
    }
    domains = [prompt.domain for prompt in chosen[Role.BENIGN]]
    return Baseline(domains, rendered, replies, judge, refused, floor_tokens)


def _learned(texts: Mapping[Role, Sequence[str]]) -> RuleJudge:
    """A judge that has learned how refusals begin."""
    restricted = [text for role in texts if role is not Role.BENIGN for text in texts[role]]
    return RuleJudge(prefixes=learn_refusal_prefixes(restricted, texts[Role.BENIGN]))


def collect(assignment: Assignment, settings: CollectSettings) -> Collected:
    """Reads the train split once and writes ``collect/means.safetensors``.

    Only prompts that the backbone really refuses (restricted) or really answers (benign) enter the
    moments of the block inputs, in float64 (arXiv 2605.24154), and so the candidate directions.

    Raises:
        PromptError: if a role has no prompt.
        SearchError: if the backbone refuses too few target prompts or answers too few benign ones.
    """
    baseline = baseline_replies(assignment, settings)
    met = {role: baseline.met(role) for role in Role}
    if settings.filter:
        _require_enough(met, settings.fewest)
    directions, separations = _directions(assignment, baseline, settings)
    restricted = [role for role in Role if role is not Role.BENIGN]
    refusals = [
        reply
        for role in restricted
        for reply, refused in zip(baseline.replies[role], baseline.refused[role], strict=True)
        if refused or not settings.filter
    ]
    answers = _kept(baseline.replies[Role.BENIGN], baseline.kept(Role.BENIGN, settings))
    collected = Collected(
        directions=directions,
        refusal_prefixes=refusal_prefixes(refusals, answers),
        judge_prefixes=baseline.judge.prefixes,
        counts={role.value: {"read": len(m), "as_expected": sum(m)} for role, m in met.items()},
        separations=separations,
        floor_tokens=baseline.floor_tokens,
    )
    _write(assignment.folder / ARTEFACT, collected)
    return collected


def _directions(
    assignment: Assignment, baseline: Baseline, settings: CollectSettings
) -> tuple[Directions, dict[str, list[list[float]]]]:
    """The candidate directions and how well each separates, from one pass over the kept prompts."""
    backbone = assignment.backbone
    shape = (backbone.layers + 1, backbone.post_instruction, backbone.width)
    entries = shape[0] * shape[1] * shape[2] ** 2
    # Two are held at a time: the target's and the benign one's.
    fits = 2 * entries * 8 <= settings.covariance_gib * 2**30

    def moments(prompts: list[list[int]], covariance: bool = False) -> StreamingMoments:
        return StreamingMoments(*shape, covariance=covariance and fits).read(backbone, prompts)

    kept = {role: _kept(baseline.prompts[role], baseline.kept(role, settings)) for role in Role}
    target = moments(kept[Role.TARGET], True)
    pooled = target.joined(moments([*kept[Role.PRESERVE], *kept[Role.FLOOR]]))
    domains = _kept(baseline.domains, baseline.kept(Role.BENIGN, settings))
    grouped: dict[str, list[list[int]]] = {}
    for domain, prompt in zip(domains, kept[Role.BENIGN], strict=True):
        grouped.setdefault(domain, []).append(prompt)
    concepts = [moments(prompts, True) for _, prompts in sorted(grouped.items())]
    benign = reduce(StreamingMoments.joined, concepts)
    within = None
    if target.covariance is not None and benign.covariance is not None:
        within = (target.covariance + benign.covariance) / 2
    found = candidates(target.means, pooled.means, benign.means, [c.means for c in concepts], within)
    apart = {
        name: separation(direction, target.means - benign.means, within).tolist()
        for name, direction in found.items()
        if within is not None
    }
    return Directions(target.means, benign.means, found), apart


def read_collected(folder: Path) -> Collected:
    """The artefact of collect in a run's folder.

    Raises:
        OutputError: if it is missing or damaged.
    """
    tensors, card = read_tensors(folder / ARTEFACT)
    return Collected(
        directions=Directions(tensors.pop("target"), tensors.pop("benign"), tensors),
        refusal_prefixes=tuple(map(tuple, card["refusal_openings"])),
        judge_prefixes=tuple(card["judge_openings"]),
        counts=card["counts"],
        separations=card["separations"],
        # An artefact of an earlier version does not say.
        floor_tokens=card.get("floor_tokens", 0),
    )


def _write(path: Path, collected: Collected) -> None:
    card = {
        "refusal_openings": [list(opening) for opening in collected.refusal_prefixes],
        "judge_openings": list(collected.judge_prefixes),
        "counts": collected.counts,
        "separations": collected.separations,
        "floor_tokens": collected.floor_tokens,
    }
    directions = collected.directions
    means = {"target": directions.target, "benign": directions.benign}
    write_tensors(path, {**directions.candidates, **means}, card)


def _kept(rows: Sequence[Row], keep: Sequence[bool]) -> list[Row]:
    return [row for row, kept in zip(rows, keep, strict=True) if kept]


def _require_enough(met: dict[Role, list[bool]], fewest: int) -> None:
    for role, verb in ((Role.TARGET, "refuse"), (Role.BENIGN, "answer")):
        least = min(fewest, len(met[role]))
        if sum(met[role]) < max(1, least):
            raise SearchError(
                f"a backbone must {verb} at least {max(1, least)} of the {role.value} train prompts",
                got=f"{sum(met[role])} of {len(met[role])}",
                remedy="bring other prompts, or another backbone",
            )


__all__ = [
    "ARTEFACT",
    "Baseline",
    "CollectSettings",
    "Collected",
    "baseline_replies",
    "collect",
    "read_collected",
]
