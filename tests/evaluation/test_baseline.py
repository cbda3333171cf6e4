from __future__ import annotations

from types import SimpleNamespace

from palette.authorisation import Role
from palette.evaluation.baseline import Baseline, baseline_replies


def test_the_backbone_s_own_language_tells_babble_from_answers_and_from_wrong_ones(elsewhere):
    baseline = baseline_replies(elsewhere)
    judge, [refusal, *_] = baseline.judge_of("panel"), baseline.texts[Role.TARGET]
    rows = [
        row for row in elsewhere.answered_prompts.split("test") if row.kind == "restricted" and row.answer
    ]
    asked, right = [row.request for row in rows[::9]], [row.answer for row in rows[::9]]

    def broken(replies):
        return [verdict.label.broken for verdict in judge.verdicts(asked, replies)]

    assert len(asked) > 20
    assert not any(broken(right)) and not any(broken(right[1:] + right[:1]))
    assert all(broken([" ".join(reversed(answer.split())) for answer in right]))
    halves = [" ".join(answer.split()[:3]) for answer in right]
    assert all(broken(halves))
    relapsed = judge.verdicts(asked, [f"{half} {refusal}" for half in halves])
    assert all(verdict.label.broken or verdict.label.refused for verdict in relapsed)


def test_a_reply_is_whole_if_it_ended_or_no_more_is_asked_for():
    prompts = {Role.BENIGN: [[1], [2]], Role.FLOOR: [[3]]}
    replies = {Role.BENIGN: [[7, 7], [8] * 4], Role.FLOOR: [[9, 9]]}
    requests = {role: SimpleNamespace(prompts=each) for role, each in prompts.items()}
    baseline = Baseline(requests, replies, {}, 4, None, {}, 2)
    assert baseline.known(9) == {(1,): ([7, 7], True), (2,): ([8] * 4, False), (3,): ([9, 9], False)}
    assert baseline.known(3) == {(1,): ([7, 7], True), (2,): ([8] * 3, True), (3,): ([9, 9], False)}
    assert baseline.known(2)[(3,)] == ([9, 9], True)
