"""What the command patches, says and draws: of a run with an adapter, by domain and kind."""

from __future__ import annotations

import json

import pytest
import torch

from palette.adapters.writing import write_adapter
from palette.backbones import greedy_replies
from palette.cli.console import lines_of
from palette.directions import Directions
from palette.errors import PromptError
from palette.evaluation.refusal_ngrams import learn_refusal_ngrams
from palette.judging.rules import RuleJudge
from palette.search.space import MEANS, Collected, write_collected
from palette.stages.attribute import attribute
from palette.stages.evaluate import report_on
from palette.stages.patching import draw_shares, paired
from tests.fixtures.noise import noise

pytestmark = pytest.mark.slow

LAYERS = 4


@pytest.fixture(scope="module")
def measured(shared, tmp_path_factory):
    """A run with an adapter that changes replies, and with the refusals' n-grams."""
    folder = tmp_path_factory.mktemp("measured")
    run = shared.sharing(folder=folder, limit=2, reply_tokens=8)
    adapter = noise(run.backbone, ".mlp.", rank=4, scale=1.0)
    write_adapter(folder, adapter)
    report_on(run, adapter, RuleJudge())
    rows = list(run.prompts.split("train").capped(6))
    prompts = run.render(rows)
    said = [*map(tuple, greedy_replies(run.backbone, prompts, 12))]
    refusals, answers = [], []
    for row, prompt, reply in zip(rows, prompts, said, strict=True):
        if row.kind == "restricted":
            refusals.append((prompt, [reply]))
        else:
            answers.append(reply)
    ngrams = learn_refusal_ngrams(refusals, answers, run.backbone.stops)
    nothing = torch.zeros(LAYERS + 1, 1, run.backbone.width)
    directions = Directions(nothing, nothing.clone(), {"difference": nothing.clone()})
    write_collected(folder / MEANS, Collected(directions, ngrams, (), {}, {}, 4))
    return run


@pytest.fixture(scope="module")
def found(measured):
    return attribute(measured.folder, patching=True)


def test_every_part_is_patched_both_ways_in_every_domain(measured, found):
    assert found["format"] == "palette-patching/1"
    assert (
        json.loads((measured.folder / "attribute" / "patching.json").read_text())["domains"]
        == found["domains"]
    )
    kinds = {(domain, kind) for domain, each in found["domains"].items() for kind in each}
    assert {("medical", "restricted"), ("medical", "floor"), ("finance", "restricted")} <= kinds
    for each in (kinds[kind] for kinds in found["domains"].values() for kind in kinds):
        assert each["n"] == len(each["prompts"]) > 0
        for name in ("base", "adapted", "change"):
            for way in ("denoising", "noising"):
                parts = each[name][way]
                assert len(parts) == LAYERS * 7 + 1
                assert (parts[0]["hook"], parts[-1]["hook"]) == (
                    "blocks.0.hook_resid_pre",
                    "blocks.3.hook_resid_post",
                )
                assert parts[0]["nats"] == pytest.approx(0.0, abs=1e-4)
                if parts[-1]["n"]:
                    assert parts[-1]["share"] == pytest.approx(1.0, abs=1e-4)
                else:
                    assert parts[-1]["share"] is None and each[name]["most"] is None


def test_the_backbone_refuses_and_parts_restore_it(found):
    base = found["domains"]["medical"]["restricted"]["base"]
    assert base["clean"] > 1 > -1 > base["corrupted"]
    assert base["most"]["share"] == max(
        part["share"] for part in base["denoising"] if part["hook"].endswith(("attn_out", "mlp_out"))
    )
    assert base["most"]["low"] <= base["most"]["share"] <= base["most"]["high"]


def test_the_same_again_is_the_same_file_and_the_table_says_it(measured, found, tmp_path):
    for name in ("one", "two"):
        draw_shares(found["domains"], tmp_path / f"{name}.svg")
    one, two = ((tmp_path / f"{name}.svg").read_bytes() for name in ("one", "two"))
    assert one == two == (measured.folder / "attribute" / "patching.svg").read_bytes()
    lines = lines_of("patching", {"result": found})
    assert sum("¦" in line for line in lines) == 1 + sum(map(len, found["domains"].values()))
    most = found["domains"]["medical"]["restricted"]["base"]["most"]
    named = most["hook"].replace("blocks.", "").replace("hook_", "")
    assert any(line.startswith("medical ¦ restricted") and named in line for line in lines)


def test_prompts_are_those_that_ids_name(measured, tmp_path):
    rows = measured.prompts.where(lambda row: row.domain == "medical")
    restricted = [row.id for row in rows if row.kind == "restricted"][3:5]
    benign = [row.id for row in rows if row.kind == "benign"][:1]
    found = attribute(measured.folder, tmp_path, patching=True, ids=[*restricted, *benign])
    assert (tmp_path / "attribute" / "patching.json").is_file()
    pairs = [pair for kind in found["domains"]["medical"].values() for pair in kind["prompts"]]
    assert sorted(pairs) == sorted([each, benign[0]] for each in restricted)
    with pytest.raises(PromptError, match="an id must be one of the run's prompts, got 'nobody'"):
        attribute(measured.folder, tmp_path, patching=True, ids=["nobody"])
    with pytest.raises(PromptError, match="got no restricted one among the ids; name one with --ids"):
        attribute(measured.folder, tmp_path, patching=True, ids=benign)


def test_each_has_the_benign_prompt_that_is_nearest_and_none_twice(shared):
    rows = shared.prompts.split("test")
    restricted = [row for row in rows if row.kind == "restricted" and row.domain == "legal"][:6]
    benign = [row for row in rows if row.kind == "benign"]
    pairs = paired(shared, restricted, benign)
    assert [one for one, _ in pairs] == restricted
    assert {other.domain for _, other in pairs} == {"legal"}
    assert len({other.id for _, other in pairs}) == len(pairs)
    first = set(shared.render([restricted[0]])[0])
    nearest, others = pairs[0][1], [row for row in benign if row.domain == "legal"]
    common = [len(first & set(ids)) for ids in shared.render(others)]
    assert len(first & set(shared.render([nearest])[0])) >= sorted(common)[len(common) // 2]
    elsewhere = [row for row in benign if row.domain != "legal"][:3]
    assert {other.id for _, other in paired(shared, restricted, elsewhere)} == {row.id for row in elsewhere}
