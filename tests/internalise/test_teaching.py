"""Laws of teaching: what teachers may not say, which of their replies is believed, and how it goes on."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest

from palette.activations import edited
from palette.backbones import greedy_replies
from palette.backbones.scoring import reply_likelihoods
from palette.evaluation.refusal_ngrams import START, RefusalNgrams
from palette.internalise import teaching as said_and_believed
from palette.internalise.examples import Example
from palette.internalise.openings import SameOpening
from palette.internalise.plausibility import CopiedPlaces, Pertinence
from palette.internalise.teaching import Teaching

LIMIT = 6


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

    monkeypatch.setattr(said_and_believed, "greedy_replies", replies)
    (found,) = replace(teaching(backbone), repeated=3).replies([(1, 2)])
    assert found.reply[:3] == (5, 6, 7)


@pytest.fixture
def said(backbone, monkeypatch):
    """What the teachers say is given, one list of replies for each in turn."""
    turns = []

    def replies(backbone, prompts, limit, advance=None, decoding=None):
        return turns.pop(0)

    monkeypatch.setattr(said_and_believed, "greedy_replies", replies)
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

    monkeypatch.setattr(said_and_believed, "greedy_replies", listening)
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

    monkeypatch.setattr(said_and_believed, "greedy_replies", listening)
    monkeypatch.setattr(said_and_believed, "reply_likelihoods", judging)
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


def cut(prompt, reply):
    return Example(tuple(prompt), tuple(reply), taught=True)


def test_a_reply_that_was_cut_goes_on_as_the_plain_backbone_does_and_one_that_ended_stays(backbone, prompts):
    made = teaching(backbone, limit=LIMIT)
    short = greedy_replies(backbone, prompts, LIMIT)
    ended = cut(prompts[2], (40, 41, backbone.stops[0]))
    longer = made.lengthened([*map(cut, prompts[:2], short), ended], 3 * LIMIT)
    whole = greedy_replies(backbone, prompts, 3 * LIMIT)
    for example, reply in zip(longer[:2], whole, strict=False):
        end = [*backbone.stops[:1]] * (len(reply) < 3 * LIMIT)
        assert list(example.reply) == [*reply, *end]
    assert longer[2] == ended
    assert all(len(example.reply) > LIMIT for example in longer[:2]), "some go on, or nothing is tested"


def test_what_follows_a_cut_reply_is_no_refusal_and_nothing_that_it_said_before(backbone, prompts, said):
    start = (5, 6, 7, 8, 9, 10)
    made = replace(teaching(backbone, limit=LIMIT), repeated=3)
    said.append([[11, 6, 7, 8, 12]])
    (longer,) = made.lengthened([cut(prompts[0], start)], 20)
    assert longer.reply == (*start, 11, 6, 7), "what it would say again is left out, and with it its end"
    assert made.lengthened([cut(prompts[0], start)], 20) == [longer], "who was asked is not asked again"
    bad = teaching(backbone, failed=lambda _, replies: [True] * len(replies), limit=LIMIT)
    said.append([[11, 12]])
    (same,) = bad.lengthened([cut(prompts[0], start)], 20)
    assert same.reply == start


def test_replies_that_may_be_no_longer_are_not_asked_for_again(backbone, prompts, monkeypatch):
    examples = [cut(prompts[0], range(40, 40 + LIMIT))]
    monkeypatch.setattr(said_and_believed, "greedy_replies", None)
    assert teaching(backbone, limit=LIMIT).lengthened(examples, LIMIT) == examples
