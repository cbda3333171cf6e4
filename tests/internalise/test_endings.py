"""Laws of endings: what would come to no good is ended, and nothing else is touched."""

from __future__ import annotations

import pytest

from palette.backbones import greedy_replies, reply_logits
from palette.internalise.endings import EARLIEST, Endings

LIMIT, TAUGHT = 12, 6


@pytest.fixture(scope="module")
def pairs(backbone):
    """Prompts, each with how the backbone begins to reply; none of these replies has an end."""
    asked = ("what is the dose ?", "tell me the clause .", "name the port .", "a dose ?")
    prompts = [tuple(backbone.render([{"role": "user", "content": each}])) for each in asked]
    replies = greedy_replies(backbone, prompts, TAUGHT)
    found = [(p, tuple(r)) for p, r in zip(prompts, replies, strict=True) if len(r) == TAUGHT]
    assert len(found) > 1
    return found


def test_what_would_come_to_no_good_is_ended_where_an_end_is_likeliest(backbone, pairs):
    bad = pairs[0][0]
    read = []

    def failed(prompts, replies):
        read.extend(map(tuple, replies))
        return [tuple(prompt) == bad for prompt in prompts]

    endings = Endings(backbone, failed, LIMIT)
    ended = endings(pairs)
    assert all(
        len(whole) <= LIMIT and whole[:TAUGHT] == reply for whole, (_, reply) in zip(read, pairs, strict=True)
    )
    assert ended[1:] == [reply for _, reply in pairs[1:]]
    *said, end = ended[0]
    assert end == backbone.stops[0] and pairs[0][1][: len(said)] == tuple(said)
    (logits,) = reply_logits(backbone, [bad], [[*pairs[0][1], end]])
    odds = logits.log_softmax(-1)[:, list(backbone.stops)].logsumexp(-1)
    least = -(-TAUGHT // EARLIEST)
    assert len(said) >= least and odds[len(said)] == odds[least:].max()


def test_each_reply_is_read_once_and_one_that_has_an_end_never(backbone, pairs):
    counts = []

    def failed(prompts, replies):
        counts.append(len(prompts))
        return [True] * len(prompts)

    endings = Endings(backbone, failed, LIMIT)
    whole = (pairs[0][0], (*pairs[0][1], backbone.stops[0]))
    once = endings([*pairs, pairs[0], whole])
    assert counts == [len(pairs)] and once[-1] == whole[1] and once[-2] == once[0]
    assert endings([*pairs, whole]) == [*once[: len(pairs)], whole[1]] and sum(counts) == len(pairs)
