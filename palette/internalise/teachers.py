"""Teachers: the backbone itself, made to answer, by trials of the search that prove themselves as such.

They are the backbone under interventions that the search tried, on for the whole reply, the plain backbone,
which is also made to begin as its benign replies do, and in later rounds students.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from palette.authorisation import Role
from palette.backbones import greedy_replies
from palette.directions import Directions, Intervention, intervening
from palette.internalise.effort import tried
from palette.internalise.examples import REPLY_TOKENS, Example
from palette.internalise.openings import Prompts, learned_openings
from palette.internalise.plausibility import CopiedPlaces, Pertinence, least_barred
from palette.internalise.teaching import Failed, Teacher, Teaching
from palette.judging.judge import Judge
from palette.run import Run
from palette.search.space import Collected, Member
from palette.seeding import evenly

PROMPTS = 240
"""Train prompts at most, a domain, kind and tier."""
TRIAL_PROMPTS = 32
"""Target prompts on which trials are tried as teachers."""
TOLERATED, CLEAN = 0.5, 0.3
"""Share of the replies of a trial at most that may be no answers, if it is to teach beside others; and of the
best one, if trials that break a limit of the search are not to be tried."""


def chosen_teachers(
    run: Run, directions: Directions, members: Sequence[Member], prompts: Prompts, failed: Failed
) -> list[Teacher]:
    """Trials by how few of their replies fail, of those that differ in site, width or method.

    Those that break a limit of the search are tried where the others leave refusals: what they do to other
    prompts does no harm to what target prompts are taught.
    """
    backbone, limit, asked = run.backbone, reply_limit(run), evenly(prompts, TRIAL_PROMPTS)
    most = tried(backbone, asked, limit)
    groups = [spread([each for each in members if each.feasible is held], most) for held in (True, False)]
    ranked: list[tuple[float, int, Intervention]] = []
    with run.progress("teachers' trial", sum(map(len, groups))) as advance:
        for group in groups:
            if min(ranked, default=(1.0,))[0] <= CLEAN:
                advance(len(group))
                break
            for member in group:
                with intervening(backbone, directions, member.intervention):
                    wrong = failed(asked, greedy_replies(backbone, asked, limit))
                ranked.append((sum(wrong) / len(asked), len(ranked), member.intervention))
                advance(1)
    ranked.sort(key=lambda each: each[:2])
    distinct: dict[tuple[int, int, str], Intervention] = {}
    for share, _, chosen in ranked:
        if share <= TOLERATED or not distinct:
            distinct.setdefault((chosen.kernel.peak, chosen.kernel.width, chosen.method), chosen)
    return [partial(intervening, backbone, directions, intervention) for intervention in distinct.values()]


def spread(members: Sequence[Member], most: int) -> Sequence[Member]:
    """So many of some trials at most, from the lowest score to the highest."""
    return evenly(sorted(members, key=lambda member: member.values["target_refusal_score"]), most)


def reply_limit(run: Run) -> int:
    """The tokens of a taught or kept reply at most."""
    return min(run.recipe.reply_tokens, REPLY_TOKENS)


def teaching_of(
    run: Run,
    collected: Collected,
    members: Sequence[Member],
    judge: Judge,
    answers: Sequence[Example],
    count: int,
) -> Teaching:
    """The teachers: as many trials, tried on target prompts of the train split, and benign ``answers``."""
    backbone, limit = run.backbone, reply_limit(run)
    rows = run.select("train", *Role).capped(run.recipe.at_most(PROMPTS))
    known = [row for split in ("train", "validation") for row in run.select(split, Role.TARGET)]
    rendered = map(tuple, run.render(known))
    questions = {prompt: row.request for prompt, row in zip(rendered, known, strict=True)}

    benign = run.render(rows.where(lambda row: run.authorisation.role(row) is Role.BENIGN))
    heard = benign[:: max(1, len(benign) // TRIAL_PROMPTS)]
    # Real answers may be longer than what is taught of them; a small model's that has no end is a loop.
    with run.progress("endings", len(heard)) as advance:
        ended = [len(reply) < limit for reply in greedy_replies(backbone, heard, limit, advance)]
    ending = sum(ended) > len(ended) / 2

    def failed(prompts: Prompts, replies: Prompts) -> list[bool]:
        # Nobody asked what a crossed prompt does.
        asked = [questions.get(tuple(prompt), "") for prompt in prompts]
        verdicts = judge.verdicts(asked, [backbone.decode(list(reply)) for reply in replies])
        endless = [ending and len(reply) >= limit for reply in replies]
        labels = [verdict.label for verdict in verdicts]
        return [x.refused or x.broken or no_end for x, no_end in zip(labels, endless, strict=True)]

    target = run.render(rows.where(lambda row: run.authorisation.role(row) is Role.TARGET))
    teachers = chosen_teachers(run, collected.directions, members, target, failed) if target else []
    openings, copied = learned_openings(backbone, answers), CopiedPlaces.learned(backbone, answers)
    # Answers with words of their requests at known places are of a few forms, which may say them twice.
    free = [] if copied.places else answers
    pertinence = Pertinence.learned(backbone, free)
    repeated = least_barred([each.reply for each in free])
    return Teaching(
        backbone,
        teachers[:count],
        collected.refusal_ngrams,
        failed,
        limit,
        copied,
        pertinence,
        repeated,
        openings,
        run.progress,
    )
