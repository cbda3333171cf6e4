"""Collect: what the backbone itself does, and where its residual stream tells target from benign."""

from __future__ import annotations

from functools import reduce

from palette.authorisation import Role
from palette.directions import Directions, StreamingMoments, candidates, separation
from palette.errors import SearchError
from palette.evaluation.baseline import Baseline, baseline_replies, refusal_prefixes
from palette.recipe import Recipe
from palette.run import Run
from palette.search.space import MEANS, Collected, write_collected

OUTPUTS = (MEANS,)
FEWEST = 16
"""Prompts that a mean needs at least, where there are as many."""


def collect(run: Run[Recipe]) -> Collected:
    """Reads the train split once and writes ``collect/means.safetensors``.

    Only prompts that the backbone really refuses (restricted) or really answers (benign) enter the
    moments of the block inputs, in float64 (arXiv 2605.24154), and so the candidate directions.

    Raises:
        PromptError: if a role has no prompt.
        SearchError: if the backbone refuses too few target prompts or answers too few benign ones.
    """
    baseline = baseline_replies(run)
    met = {role: baseline.met(role) for role in Role}
    _require_enough(met)
    directions, separations = _directions(run, baseline)
    kept = {role: [baseline.replies[role][place] for place in baseline.as_expected(role)] for role in Role}
    refusals = [*kept[Role.TARGET], *kept[Role.PRESERVE], *kept[Role.FLOOR]]
    collected = Collected(
        directions=directions,
        refusal_prefixes=refusal_prefixes(refusals, kept[Role.BENIGN]),
        judge_prefixes=baseline.judge.prefixes,
        counts={role.value: {"read": len(m), "as_expected": sum(m)} for role, m in met.items()},
        separations=separations,
        floor_tokens=baseline.floor_tokens,
    )
    write_collected(run.folder / MEANS, collected)
    return collected


def _directions(run: Run, baseline: Baseline) -> tuple[Directions, dict[str, list[list[float]]]]:
    """The candidate directions and how well each separates, from one pass over the kept prompts."""
    backbone = run.backbone
    shape = (backbone.layers + 1, backbone.post_instruction, backbone.width)
    entries = shape[0] * shape[1] * shape[2] ** 2
    # Two are held at a time: the target's and the benign one's.
    fits = 2 * entries * 8 <= run.recipe.memory_gib / 4 * 2**30

    def moments(prompts: list[list[int]], covariance: bool = False) -> StreamingMoments:
        return StreamingMoments(*shape, covariance=covariance and fits).read(backbone, prompts)

    met = {role: baseline.requests[role].where(baseline.as_expected(role)) for role in Role}
    target = moments(list(met[Role.TARGET].prompts), True)
    pooled = target.joined(moments([*met[Role.PRESERVE].prompts, *met[Role.FLOOR].prompts]))
    grouped: dict[str, list[list[int]]] = {}
    for row, prompt in zip(met[Role.BENIGN].rows, met[Role.BENIGN].prompts, strict=True):
        grouped.setdefault(row.domain, []).append(prompt)
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


def _require_enough(met: dict[Role, list[bool]]) -> None:
    for role, verb in ((Role.TARGET, "refuse"), (Role.BENIGN, "answer")):
        least = min(FEWEST, len(met[role]))
        if sum(met[role]) < max(1, least):
            raise SearchError(
                f"a backbone must {verb} at least {max(1, least)} of the {role.value} train prompts",
                got=f"{sum(met[role])} of {len(met[role])}",
                remedy="bring other prompts, or another backbone",
            )
