from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from palette.authorisation import Role
from palette.backbones import greedy_replies
from palette.errors import OutputError, PromptError, SearchError
from palette.evaluation.baseline import baseline_replies
from palette.judging.classifiers import DISAGREEMENT, PanelJudge
from palette.prompts import PromptSet
from palette.search.space import MEANS, read_collected
from palette.stages import collect as collecting
from palette.stages.collect import collect


@pytest.fixture
def elsewhere(shared, tmp_path):
    """The shared run on few prompts, in an empty folder."""
    return shared.sharing(folder=tmp_path, limit=12)


def test_collect_reads_what_the_backbone_really_does(elsewhere):
    collected = collect(elsewhere)
    assert collected.counts["target"] == {"read": 12, "as_expected": 12}
    assert collected.counts["benign"]["as_expected"] >= 0.95 * collected.counts["benign"]["read"]
    assert collected.directions.target.dtype == torch.float64
    layers, tokens = elsewhere.backbone.layers, elsewhere.backbone.post_instruction
    assert collected.directions.difference.shape == (layers + 1, tokens, elsewhere.backbone.width)
    ngrams = collected.refusal_ngrams
    kept = elsewhere.render(elsewhere.select("validation", Role.PRESERVE).capped(4))
    assert all(ngrams.place(reply) == 0 for reply in greedy_replies(elsewhere.backbone, kept, 16))
    benign = elsewhere.render(elsewhere.select("validation", Role.BENIGN).capped(8))
    assert all(ngrams.place(reply) is None for reply in greedy_replies(elsewhere.backbone, benign, 16))
    assert any("i am sorry" in opening for opening in collected.judge_prefixes)


def test_the_panel_judges_the_organism_s_replies_as_the_rules_do(shared):
    rules = baseline_replies(shared.sharing(limit=12)).judge
    rows = shared.prompts.split("test").capped(8)
    backbone = shared.backbone
    texts = [backbone.decode(reply) for reply in greedy_replies(backbone, shared.render(rows), 32)]
    found = PanelJudge(rules).verdicts(rows.requests, texts)
    # The trained judge may see an answer in a refusal that the rules see; then it is flagged, and stays one.
    alone = rules.verdicts(rows.requests, texts)
    assert [verdict.label for verdict in found] == [verdict.label for verdict in alone]
    assert sum(DISAGREEMENT in verdict.flags for verdict in found) <= 0.05 * len(found)
    assert 0 < sum(verdict.label.refused for verdict in found) < len(found)
    benign = [verdict for verdict, row in zip(found, rows, strict=True) if row.kind == "benign"]
    assert not any(verdict.label.refused for verdict in benign)


def test_the_artefact_says_the_same_and_has_the_same_bytes_each_time(elsewhere, tmp_path):
    collected = collect(elsewhere)
    again = elsewhere.sharing(folder=tmp_path / "again")
    collect(again)
    assert (tmp_path / MEANS).read_bytes() == (tmp_path / "again" / MEANS).read_bytes()
    read = read_collected(tmp_path)
    assert read.counts == collected.counts
    assert read.refusal_ngrams == collected.refusal_ngrams
    assert torch.equal(read.directions.difference, collected.directions.difference)


def test_floor_prompts_get_a_few_tokens_only(elsewhere):
    baseline = baseline_replies(elsewhere)
    assert max(map(len, baseline.replies["floor"])) <= baseline.floor_tokens
    assert baseline.floor_tokens == elsewhere.recipe.floor_tokens


def test_floor_replies_are_as_long_as_a_refusal_needs_to_show(elsewhere):
    """One token of this backbone's refusals is too few; the artefact says how many it takes."""
    short = elsewhere.sharing(floor_tokens=1)
    baseline = baseline_replies(short)
    assert 1 < baseline.floor_tokens <= elsewhere.recipe.floor_tokens
    assert collect(short).floor_tokens == baseline.floor_tokens
    assert read_collected(elsewhere.folder).floor_tokens == baseline.floor_tokens


def test_a_backbone_that_answers_what_it_should_refuse_is_no_use(elsewhere):
    rows = [
        replace(row, kind="restricted", tier="A") if row.kind == "benign" else row
        for row in elsewhere.prompts
    ]
    benign = [row for row in elsewhere.prompts if row.kind == "benign" and row.domain == "general"]
    wrong = [
        row
        for row in rows
        if row.domain == "medical" and row.id in {r.id for r in elsewhere.prompts if r.kind == "benign"}
    ]
    with pytest.raises(SearchError) as caught:
        collect(elsewhere.sharing(prompts=PromptSet((*wrong, *benign))))
    assert "a backbone must refuse at least 12 of the target train prompts, got 0 of 12" in str(caught.value)


def test_a_role_without_prompts_is_named(elsewhere):
    nothing = elsewhere.prompts.where(lambda row: row.kind == "benign")
    with pytest.raises(PromptError, match="got no target train prompt"):
        collect(elsewhere.sharing(prompts=nothing))


def test_a_missing_artefact_names_its_remedy(tmp_path):
    with pytest.raises(OutputError, match="run its stage first"):
        read_collected(tmp_path)


def test_no_refusal_is_drawn_for_a_prompt_of_the_floor(elsewhere, monkeypatch):
    asked = []

    def listening(backbone, prompts, limit, advance, decoding):
        asked.extend(map(tuple, prompts))
        return greedy_replies(backbone, prompts, limit, advance, decoding)

    monkeypatch.setattr(collecting, "greedy_replies", listening)
    collect(elsewhere)
    floor = {tuple(ids) for ids in elsewhere.render(elsewhere.select("train", Role.FLOOR))}
    assert asked
    assert floor.isdisjoint(asked)
