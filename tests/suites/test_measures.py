"""What each kind of measure finds on a model that is known."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from palette.backbones import reply_logits
from palette.errors import PromptError, RecipeError
from palette.evaluation.subjects import divergence as mean_divergence
from palette.judging.judge import Label, Verdict
from palette.suites.measures import measured, ratio


class Speller:
    """A judge that refuses by the first letter, so that both sides are told apart, and notes the prompts."""

    fingerprint = "speller"

    def __init__(self):
        self.prompts = []

    def verdicts(self, prompts, replies):
        self.prompts += prompts
        odd = [sum(map(ord, reply)) % 2 for reply in replies]
        return [Verdict(Label.REFUSAL if one else Label.FULL_COMPLIANCE) for one in odd]


def run(measuring, *measures, **more):
    return measured(measuring(*measures, **{"reply_tokens": 4, **more}))


def test_three_public_sets_are_asked_for_over_refusal(measuring):
    found = run(
        measuring,
        {"kind": "over_refusal", "name": "a", "prompts": "xstest/prompts.csv", "schema": "xstest"},
        {"kind": "over_refusal", "name": "b", "prompts": "coconot/contrast_eval.jsonl",
         "schema": "coconot_contrast"},
        {"kind": "over_refusal", "name": "c", "prompts": "cyberseceval/mitre_frr.json",
         "schema": "cyberseceval_frr"},
    )  # fmt: skip
    assert [one.n for one in found] == [6, 4, 3]
    assert [one.source.rows for one in found] == [8, 4, 3]
    for one in found:
        line = one.to_json()
        assert set(line) == {"name", "kind", "source", "n", "base", "adapted", "change", "seconds"}
        assert line["base"]["refusal"]["n"] == one.n
        assert set(line["source"]) == {"name", "digest", "licence", "source", "rows"}
        json.dumps(line, allow_nan=False)


def test_the_judge_is_given_the_prompts_and_the_pairs_are_counted(measuring):
    judge = Speller()
    [found] = run(measuring, {"kind": "over_refusal", "prompts": "own"}, judge=judge)
    assert judge.prompts == [f"benign {n} ?" for n in range(5)] * 2
    base, adapted = found.sides
    moved = adapted["refusal"].k - base["refusal"].k
    assert moved == found.change["gained"] - found.change["lost"]
    assert base["refusal"].k == sum(item.counted[0] for item in found.items)
    assert "benign 0" not in repr(found)


def test_roles_part_the_prompts(measuring):
    relaxed, kept, benign = run(
        measuring,
        *({"kind": kind, "prompts": "own"} for kind in
          ("refusal_relaxed", "refusal_kept", "over_refusal")),
    )  # fmt: skip
    assert [item.id for item in relaxed.items] == [f"restricted-{n}" for n in range(5)]
    assert [item.id for item in kept.items] == ["c"]
    assert "correct" in relaxed.sides[0]
    assert "correct" not in kept.sides[0]
    assert [item.id for item in benign.items] == [f"benign-{n}" for n in range(5)]


def test_floor_replies_are_cut_short(measuring, monkeypatch):
    limits = []

    def replies(self, subject, prompts, tokens):
        limits.extend(tokens)
        return [[10]] * len(prompts)

    monkeypatch.setattr("palette.evaluation.replies.Replies.of", replies)
    shut = {"authorise": [], "adapted": False, "reply_tokens": 64, "floor_tokens": 5}
    run(measuring, {"kind": "refusal_kept", "prompts": "own"}, **shut)
    assert sorted(limits) == [5, 64, 64, 64, 64, 64]


def test_a_measure_of_prompts_with_an_image_is_refused(measuring, data, tmp_path):
    written = (data / "own" / "medical.jsonl").read_text().splitlines()
    seen = [json.dumps({**json.loads(line), "image": "hat.png"}) + "\n" for line in written]
    (tmp_path / "seen").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "seen" / "hat.png")
    (tmp_path / "seen" / "medical.jsonl").write_text("".join(seen))
    with pytest.raises(PromptError, match="a prompt with a picture must be asked of a model that sees"):
        run(measuring, {"kind": "over_refusal", "prompts": str(tmp_path / "seen")})


def test_without_an_adapter_there_is_one_side_and_no_change(measuring):
    asked, moved, cost = run(
        measuring,
        {"kind": "over_refusal", "prompts": "own"},
        {"kind": "divergence", "prompts": "own"},
        {"kind": "perplexity", "prompts": "own"},
        adapted=False,
    )
    for one in (asked, moved, cost):
        assert one.to_json()["adapted"] == {}
        assert one.to_json()["change"] is None
    assert moved.to_json()["base"] == {}


def test_perplexity_is_that_of_the_windows(measuring, tiny, data):
    [found] = run(measuring, {"kind": "perplexity", "text": "tale.txt", "window": 40, "limit": 6})
    ids = tiny.tokenizer.encode((data / "tale.txt").read_text(), add_special_tokens=False)
    costs = []
    for start in range(0, 240, 40):
        window = torch.tensor([ids[start : start + 40]])
        logits = tiny.model(window).logits[0, :-1].double()
        costs.append(torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum").item())
    base, adapted = found.sides
    assert base["nats_per_token"] == pytest.approx(sum(costs) / (6 * 39), rel=1e-5)
    assert base["perplexity"] == pytest.approx(math.exp(base["nats_per_token"]))
    gap = adapted["nats_per_token"] - base["nats_per_token"]
    assert adapted["difference"] == pytest.approx(gap)
    assert abs(gap) > 1e-3
    assert found.source.name == "tale.txt"


def test_divergence_is_the_gates(measuring, tiny, adapter):
    [found] = run(measuring, {"kind": "divergence", "prompts": "own"}, reply_tokens=6)
    from palette.adapters.mounting import mounted
    from palette.backbones import greedy_replies

    asked = [tiny.render([{"role": "user", "content": f"benign {n} ?"}]) for n in range(5)]
    replies = [[*one, tiny.stops[0]] for one in greedy_replies(tiny, asked, 6)]
    plain = reply_logits(tiny, asked, replies)
    with mounted(tiny.model, adapter):
        moved = mean_divergence(plain, reply_logits(tiny, asked, replies))
    _, adapted = found.sides
    assert adapted["first_token"] == pytest.approx(moved["first_token"], rel=1e-6)
    assert adapted["multi_token"] == pytest.approx(moved["multi_token"], rel=1e-6)
    assert adapted["multi_token_standard_error"] > 0


def test_the_adapter_is_off_afterwards(measuring, tiny):
    ids = torch.tensor([[9, 10, 11]])
    before = tiny.model(ids).logits
    run(measuring, {"kind": "divergence", "prompts": "own"})
    assert torch.equal(tiny.model(ids).logits, before)


@given(st.lists(st.tuples(st.floats(-50, 50), st.integers(1, 40)), min_size=2, max_size=12))
def test_a_ratio_of_equal_counts_is_a_mean_with_its_usual_error(pairs):
    values = [value for value, _ in pairs]
    mean, error = ratio(values, [1] * len(values))
    spread = torch.tensor(values, dtype=torch.float64)
    assert mean == pytest.approx(float(spread.mean()), abs=1e-9)
    assert error == pytest.approx(float(spread.std() / math.sqrt(len(values))), abs=1e-9)
    whole, _ = ratio(*zip(*pairs, strict=True))
    assert whole == pytest.approx(sum(values) / sum(count for _, count in pairs))


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        ({"kind": "over_refusal", "prompts": "none.csv"},
         "a suite's data must exist, got nothing at none.csv"),
        ({"kind": "over_refusal", "prompts": "tale.txt", "schema": "xstest"}, "tale.txt"),
        ({"kind": "over_refusal", "prompts": "own", "domains": ["law"]},
         "over_refusal must have a prompt to ask, got none among 0"),
        ({"kind": "perplexity", "text": "own"}, "perplexity must be of readable UTF-8 text"),
        ({"kind": "perplexity", "prompts": "xstest"}, "prompts must be a folder of <domain>.jsonl"),
        ({"kind": "divergence", "prompts": "own", "domains": ["law"]},
         "divergence must have a benign prompt"),
    ],
)  # fmt: skip
def test_bad_data_is_said_in_one_sentence(measuring, one, sentence):
    with pytest.raises(PromptError) as caught:
        run(measuring, one)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "paint wall" not in str(caught.value)


def test_nothing_opened_cannot_be_relaxed(measuring):
    with pytest.raises(RecipeError, match="refusals are relaxed in the domains that are opened, got none"):
        run(measuring, {"kind": "refusal_relaxed", "prompts": "own"}, authorise=[], adapted=False)
