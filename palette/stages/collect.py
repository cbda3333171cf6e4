"""Collect: what the backbone itself does, and where its residual stream tells target from benign."""

from __future__ import annotations

from palette.authorisation import Role
from palette.backbones import Backbone, greedy_replies
from palette.backbones.continuous import Decoding
from palette.directions import Directions, candidates, separation
from palette.errors import SearchError
from palette.evaluation.baseline import REPLY_TOKENS, Baseline, baseline_replies
from palette.evaluation.modalities import Part, parted, several, similarities, summed
from palette.evaluation.refusal_ngrams import RefusalNgrams, learn_refusal_ngrams
from palette.evaluation.subjects import Requests
from palette.moments import StreamingMoments, WithinCovariance
from palette.recipe import Recipe
from palette.run import Run
from palette.search.space import MEANS, Collected, write_collected
from palette.seeding import derive_seed, evenly

OUTPUTS = (MEANS,)
FEWEST = 16
"""Prompts that a mean needs at least, where there are as many."""
DRAWN_PROMPTS, DRAWS = 48, 4
"""Target prompts and preserved ones for which refusals are drawn, and how many for each."""
Figures = dict[str, list[list[float]]]
"""By name a figure for every site and position."""


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
    directions, separations, similar = _directions(run, baseline)
    collected = Collected(
        directions=directions,
        refusal_ngrams=_refusal_ngrams(run, baseline),
        judge_prefixes=baseline.judge.prefixes,
        counts={role.value: {"read": len(m), "as_expected": sum(m)} for role, m in met.items()},
        separations=separations,
        floor_tokens=baseline.floor_tokens,
        domains=baseline.domains,
        similarities=similar,
    )
    write_collected(run.folder / MEANS, collected)
    return collected


def _refusal_ngrams(run: Run, baseline: Baseline) -> RefusalNgrams:
    """The n-grams of the backbone's refusals, greedy and drawn: other wordings wait behind the likeliest.

    Nothing is drawn for prompts of the floor, and what is drawn counts only where it is a refusal.
    """
    backbone, kept = run.backbone, {role: baseline.as_expected(role) for role in Role}
    refusals = {
        (role, place): [tuple(baseline.replies[role][place])]
        for role in (Role.TARGET, Role.PRESERVE, Role.FLOOR)
        for place in kept[role]
    }
    asked = [
        (role, place) for role in (Role.TARGET, Role.PRESERVE) for place in evenly(kept[role], DRAWN_PROMPTS)
    ]
    prompts = [baseline.requests[role].prompts[place] for role, place in asked]
    limit = min(REPLY_TOKENS, run.recipe.reply_tokens)
    with run.progress("refusals", DRAWS * len(asked)) as advance:
        for draw in range(DRAWS):
            decoding = Decoding(seed=derive_seed(run.seed, "refusals", draw))
            drawn = greedy_replies(backbone, prompts, limit, advance, decoding)
            questions = [baseline.requests[role].questions[place] for role, place in asked]
            verdicts = baseline.judge.verdicts(questions, [backbone.decode(reply) for reply in drawn])
            for key, reply, verdict in zip(asked, drawn, verdicts, strict=True):
                if verdict.label.refused:
                    refusals[key].append(tuple(reply))
    answers = [tuple(baseline.replies[Role.BENIGN][place]) for place in kept[Role.BENIGN]]
    met = [(baseline.requests[role].prompts[place], said) for (role, place), said in refusals.items()]
    return learn_refusal_ngrams(met, answers, backbone.stops)


def _directions(run: Run, baseline: Baseline) -> tuple[Directions, Figures, Figures]:
    """The candidate directions, how well each separates, and how alike those of modalities are.

    All from one pass over the kept prompts.
    """
    backbone = run.backbone
    shape = (backbone.layers + 1, backbone.post_instruction, backbone.width)

    met = {role: baseline.requests[role].where(baseline.as_expected(role)) for role in Role}
    halved = several([met[Role.TARGET], met[Role.BENIGN]])
    grouped: dict[str, list[int]] = {}
    for place, row in enumerate(met[Role.BENIGN].rows):
        grouped.setdefault(row.domain, []).append(place)
    covariance = WithinCovariance(*shape) if covariance_gib(backbone, run.recipe.memory_gib) else None
    with run.progress("directions", sum(map(len, met.values()))) as advance:

        def moments(prompts: list[list[int]], of: int = 0) -> StreamingMoments:
            read = (covariance, 0.5 / of) if of else ()
            return StreamingMoments(*shape).read(backbone, prompts, advance, *read)

        def parts(requests: Requests, of: int) -> dict[Part, StreamingMoments]:
            return {key: moments(each, of) for key, each in parted(requests, halved=halved).items()}

        refused = parts(met[Role.TARGET], len(met[Role.TARGET]))
        target = summed(refused.values())
        pooled = moments([*met[Role.PRESERVE].prompts, *met[Role.FLOOR].prompts]).absorb(target)
        answered = [
            parts(met[Role.BENIGN].where(places), len(met[Role.BENIGN]))
            for _, places in sorted(grouped.items())
        ]
        concepts = [summed(each.values()) for each in answered]
        benign = summed(concepts)
        within = covariance.about([target.means, benign.means]) if covariance else None
        # Whitening a wide stream takes as long as the passes, and stands in the same piece of work.
        means = [each.means for each in concepts]
        found = candidates(target.means, pooled.means, benign.means, means, within)
        apart = {
            name: separation(direction, target.means - benign.means, within).tolist()
            for name, direction in found.items()
            if within is not None
        }
    said = {key: summed(each[key] for each in answered if key in each) for key in refused}
    similar = similarities(refused, said) if halved else {}
    return Directions(target.means, benign.means, found), apart, similar


def covariance_gib(backbone: Backbone, memory_gib: float) -> float:
    """The GiB of the covariance within prompts at every site and position; 0 where it is over half of all."""
    sites, positions = backbone.layers + 1, backbone.post_instruction
    gib = sites * positions * backbone.width**2 * 8 / 2**30
    return gib if gib <= memory_gib / 2 else 0.0


def _require_enough(met: dict[Role, list[bool]]) -> None:
    for role, verb in ((Role.TARGET, "refuse"), (Role.BENIGN, "answer")):
        least = min(FEWEST, len(met[role]))
        if sum(met[role]) < max(1, least):
            raise SearchError(
                f"a backbone must {verb} at least {max(1, least)} of the {role.value} train prompts",
                got=f"{sum(met[role])} of {len(met[role])}",
                remedy="bring other prompts, or another backbone",
            )
