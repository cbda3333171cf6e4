"""Laws of teachers: who may teach, what they may not say, and which of their replies is believed."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch

from palette.activations import edited
from palette.authorisation import Authorisation
from palette.backbones import greedy_replies
from palette.backbones.scoring import reply_likelihoods
from palette.directions import Directions, Intervention, StrengthKernel
from palette.evaluation.refusal_ngrams import START, RefusalNgrams
from palette.internalise import teachers
from palette.internalise.openings import SameOpening
from palette.internalise.plausibility import CopiedPlaces, Pertinence
from palette.internalise.teachers import Teaching, chosen_teachers
from palette.prompts import PromptSet
from palette.run import Run
from palette.run_settings import RunSettings
from palette.search.space import Member

LIMIT = 6
NOWHERE = Directions(*(torch.zeros(4, 1, 16, dtype=torch.float64) for _ in range(2)))


@pytest.fixture(scope="module")
def prompts(backbone):
    asked = ("what is the dose ?", "tell me the clause .", "name the port .")
    return [backbone.render([{"role": "user", "content": each}]) for each in asked]


def shifted(backbone, strength):
    """A teacher: the backbone with its stream moved."""

    @contextmanager
    def teacher():
        with edited(backbone.blocks, {2: lambda x: x + strength * x.roll(1, -1)}):
            yield

    return teacher


def teaching(backbone, *made, ngrams=None, failed=lambda prompts, replies: [False] * len(replies), limit=99):
    return Teaching(
        backbone, list(made), ngrams or RefusalNgrams(), failed, limit, CopiedPlaces(backbone, ())
    )


def test_nobody_says_again_what_is_held_back(backbone, monkeypatch):
    def replies(backbone, prompts, limit, advance=None, decoding=None):
        assert decoding.barred((5, 6, 7, 5, 6)) == {7}
        assert decoding.barred((5, 6, 7, 6)) == frozenset()
        return [[5, 6, 7]] * len(prompts)

    monkeypatch.setattr(teachers, "greedy_replies", replies)
    (found,) = replace(teaching(backbone), repeated=3).replies([(1, 2)])
    assert found.reply[:3] == (5, 6, 7)


@pytest.fixture
def said(backbone, monkeypatch):
    """What the teachers say is given, one list of replies for each in turn."""
    turns = []

    def replies(backbone, prompts, limit, advance=None, decoding=None):
        return turns.pop(0)

    monkeypatch.setattr(teachers, "greedy_replies", replies)
    return turns


def test_the_reply_that_all_find_likeliest_the_plain_backbone_first_is_believed(backbone, prompts, said):
    one, other = shifted(backbone, 0.5), shifted(backbone, -0.8)
    replies = [[40, 41, 42], [50, 51], [43, 44]]
    said += [[reply] * 3 for reply in replies]
    believed = teaching(backbone, one, other).replies(prompts)
    for prompt, taught in zip(prompts, believed, strict=True):
        means = []
        for reply in replies:
            whole, each = [[*reply, backbone.stops[0]]], []
            for teacher in (nullcontext, one, other):
                with teacher():
                    each += reply_likelihoods(backbone, [prompt], whole)
            means.append((2 * each[0] + (each[1] + each[2]) / 2) / 3)
        assert taught.reply == (*replies[means.index(max(means))], backbone.stops[0])
        assert taught.likelihood == pytest.approx(max(means), abs=1e-6)
        assert taught.share == pytest.approx(1 / 3)


def test_a_reply_is_told_with_the_share_of_those_who_gave_it(backbone, prompts, said):
    said += [[[40, 41]] * 3, [[40, 41]] * 3]
    made = teaching(backbone, shifted(backbone, 0.5))
    assert [each.share for each in made.replies(prompts)] == [1.0] * 3
    # Who joins and says nothing has spoken too.
    made.teachers.append(shifted(backbone, 0.1))
    said += [[], [], [[], [40, 41], [50]]]
    assert [each.share for each in made.replies(prompts)] == pytest.approx([2 / 3, 1.0, 2 / 3])


def test_what_fails_is_never_taught_and_what_was_cut_off_has_no_end(backbone, prompts, said):
    no, long, good = [1, 2], [5] * LIMIT, [40, 41]
    said += [[no, long, good], [no, no, no]]
    made = teaching(
        backbone, shifted(backbone, 0.5), failed=lambda _, r: [list(x) == no for x in r], limit=LIMIT
    )
    found = [taught and list(taught.reply) for taught in made.replies(prompts)]
    assert found == [None, long, [*good, backbone.stops[0]]]


def test_no_teacher_says_what_refusals_say(backbone, prompts, monkeypatch):
    plain = greedy_replies(backbone, prompts, LIMIT)
    ngrams = RefusalNgrams({(START,): frozenset(reply[0] for reply in plain)})
    heard = []

    def listening(*given, **named):
        replies = greedy_replies(*given, **named)
        heard.append(replies)
        return replies

    monkeypatch.setattr(teachers, "greedy_replies", listening)
    teaching(backbone, shifted(backbone, 0.1), ngrams=ngrams, limit=LIMIT).replies(prompts)
    assert len(heard) == 2, "the plain backbone speaks beside the one teacher"
    assert all(ngrams.place(reply) is None for replies in heard for reply in replies)
    heard.clear()
    teaching(backbone, shifted(backbone, 0.1), limit=LIMIT).replies(prompts)
    assert heard[0] == plain


def test_the_plain_backbone_begins_as_answers_do(backbone, prompts):
    opening, ngrams = (40, 41), RefusalNgrams({(40, 41): frozenset(range(50))})
    made = teaching(backbone, ngrams=ngrams, limit=LIMIT)
    made.openings.append(SameOpening(opening))
    made.replies(prompts)
    for prompt in prompts:
        begun = [reply for reply in made._found[tuple(prompt)] if reply[:2] == opening]
        # What is said behind an opening is no refusal, with the opening's tokens before it.
        assert begun
        assert all(len(reply) <= LIMIT and reply[2] not in range(50) for reply in begun)
    made.openings.clear()
    assert made.replies(prompts), "who has been heard is not asked again"


def test_a_reply_about_something_else_is_not_taught_where_answers_say_what_is_asked(backbone, prompts, said):
    copied = CopiedPlaces(backbone, (0,))
    encode = backbone.tokenizer.encode
    dose, clause, port = (encode(word, add_special_tokens=False) for word in ("dose", "clause", "port"))
    likely = [greedy_replies(backbone, [prompt], 2)[0] for prompt in prompts]
    rest = [[*word, 40] for word in (dose, clause, port)]
    assert not any(copied.held(prompt, reply) for prompt, reply in zip(prompts, likely, strict=True))
    said += [likely, rest]
    believed = replace(teaching(backbone, shifted(backbone, 0.5)), copied=copied).replies(prompts)
    assert [list(each.reply[:-1]) for each in believed] == rest, "whatever its likelihood"
    # Where one of three has none it is taught nothing; where most have none, all are taught as they are.
    said += [[likely[0], *rest[1:]]]
    believed = replace(teaching(backbone), copied=copied).replies(prompts)
    assert [each is None for each in believed] == [True, False, False]
    said += [[*likely[:2], rest[2]]]
    believed = replace(teaching(backbone), copied=copied).replies(prompts)
    assert [list(each.reply[:-1]) for each in believed] == [*likely[:2], rest[2]]


def test_a_reply_that_would_do_behind_any_request_is_not_taught(backbone, prompts, said, monkeypatch):
    empty, about = [[40, 41]] * 3, [[42, 43], [44, 45], [46, 47]]
    plain = [
        reply_likelihoods(backbone, prompts, [[*each, backbone.stops[0]] for each in x])
        for x in (empty, about)
    ]
    likelier, rarer = (empty, about) if sum(plain[0]) > sum(plain[1]) else (about, empty)
    least, asked = 0.5, []

    def gains(self, prompts, replies, likelihoods, among):
        asked.append(len(replies))
        return [least - 0.1 if list(reply[:2]) in likelier else least for reply in replies]

    monkeypatch.setattr(Pertinence, "gains", gains)
    made = replace(teaching(backbone, shifted(backbone, 0.01)), pertinence=Pertinence(backbone, least))
    said += [likelier, rarer]
    assert [list(each.reply[:2]) for each in made.replies(prompts)] == rarer, "however likely the other is"
    said += [[], []]
    assert made.replies(prompts)
    assert asked == [6], "each is asked about once"


def test_what_is_said_behind_openings_of_their_own_is_no_refusal(backbone, prompts):
    openings = [(40, 41), (42, 41), (43, 41)]
    ngrams = RefusalNgrams({(START,): frozenset(range(4, 90)), (41,): frozenset(range(50))})
    replies = teaching(backbone, ngrams=ngrams, limit=LIMIT).continued(prompts, openings)
    for opening, reply in zip(openings, replies, strict=True):
        assert reply[:2] == opening
        assert reply[2] not in range(50), "with what all openings end before it"
    barred = teaching(backbone, failed=lambda _, said: [True, False, True], limit=LIMIT)
    assert [reply is None for reply in barred.continued(prompts, openings)] == [True, False, True]
    elsewhere = replace(teaching(backbone, limit=LIMIT), copied=CopiedPlaces(backbone, (0,)))
    assert elsewhere.continued(prompts, openings) == [None] * 3


def test_who_comes_later_is_heard_beside_those_who_have_spoken(backbone, prompts, monkeypatch):
    one, other = shifted(backbone, 0.5), shifted(backbone, -0.8)
    asked, judged = [], []

    def listening(*given, **named):
        asked.append(len(given[1]))
        return greedy_replies(*given, **named)

    def judging(*given):
        judged.append(len(given[1]))
        return reply_likelihoods(*given)

    monkeypatch.setattr(teachers, "greedy_replies", listening)
    monkeypatch.setattr(teachers, "reply_likelihoods", judging)
    at_once = teaching(backbone, one, other, limit=LIMIT).replies(prompts)
    asked.clear(), judged.clear()
    made = teaching(backbone, one, limit=LIMIT)
    made.replies(prompts[:2])
    made.teachers.append(other)
    assert made.replies(prompts) == at_once
    # The plain backbone, then each teacher, each prompt once; a reply is judged once by each of the three.
    assert asked == [2, 2, 1, 1, 3]
    candidates = sum(map(len, made._found.values()))
    assert sum(judged) == 3 * candidates


def member(trial, score, peak, width=0, method="centred_ablation"):
    kernel = StrengthKernel(peak, width, 1.0)
    return Member(trial, Intervention(method, -1, kernel), {"target_refusal_score": score})


def test_those_whose_replies_fail_least_teach_and_each_place_once(backbone, prompts, monkeypatch, tmp_path):
    bad = {1: 3, 2: 0, 3: 1, 4: 2}
    at = []

    @contextmanager
    def intervening(backbone, directions, intervention):
        at[:] = [intervention.kernel.peak]
        yield

    monkeypatch.setattr(teachers, "intervening", intervening)
    monkeypatch.setattr(teachers, "greedy_replies", lambda *given, **named: [[7]] * 3)
    known = [member(n, float(n), peak) for n, peak in enumerate((1, 2, 2, 3, 4))]

    def failed(prompts, replies):
        return [i < bad[at[0]] for i in range(len(replies))]

    run = Run.of(RunSettings(), tmp_path, backbone, PromptSet(()), Authorisation(()))
    made = chosen_teachers(run, NOWHERE, known, prompts, failed)
    # Site 1 fails always and site 4 in two of three; site 2 has two trials and teaches once.
    assert [teacher.args[2].kernel.peak for teacher in made] == [2, 3]
    # Where all fail, the one that fails least teaches alone.
    worst = chosen_teachers(run, NOWHERE, known[:1], prompts, failed)
    assert [teacher.args[2].kernel.peak for teacher in worst] == [1]
    # What breaks a limit is tried only where the best of the others leaves refusals.
    beyond = [replace(each, feasible=False) for each in known[1:]]
    helped = chosen_teachers(run, NOWHERE, [known[0], *beyond], prompts, failed)
    assert [teacher.args[2].kernel.peak for teacher in helped] == [2, 3]
    alone = chosen_teachers(run, NOWHERE, [known[1], *beyond[2:]], prompts, failed)
    assert [teacher.args[2].kernel.peak for teacher in alone] == [2]
