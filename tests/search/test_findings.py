"""What collect and search found, told before the next stage is paid for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from palette.errors import OutputError
from palette.search.findings import DEVIATIONS, RELATIVE, collect_findings, search_findings
from palette.search.settings import Audit, Conditions, Scoring, SearchSettings
from palette.search.space import FRONT, MEANS, read_collected, write_collected
from palette.stages.collect import collect
from palette.stages.search import search

AUDITED = Conditions(Scoring(target_prompts=8, other_prompts=2), audit=Audit(members=1, sample=1, prompts=4))


@pytest.fixture(scope="module")
def searched(shared, tmp_path_factory):
    run = shared.sharing(
        folder=tmp_path_factory.mktemp("found"), limit=12, search=SearchSettings(trials=6), reply_tokens=24
    )
    collect(run)
    search(run, AUDITED)
    return run


def test_collect_counts_what_the_backbone_does_by_domain_and_kind(searched):
    domains = collect_findings(searched.folder)["domains"]
    assert list(domains) == sorted(searched.prompts.domains)
    assert domains["medical"] == {
        "restricted": {"read": 12, "refused": 12, "answered": 0},
        "floor": {"read": 12, "refused": 12, "answered": 0},
        "benign": {"read": 12, "refused": 0, "answered": 12},
    }
    assert list(domains["weapons"]) == ["floor", "benign"]
    counts = read_collected(searched.folder).counts
    cells = [cell for kinds in domains.values() for kind, cell in kinds.items() if kind == "benign"]
    assert sum(cell["read"] - cell["refused"] for cell in cells) == counts["benign"]["as_expected"]


def test_separation_is_told_by_layer_with_the_best_one(searched):
    found = collect_findings(searched.folder)["separation"]
    assert (found["layers"], found["unit"]) == (searched.backbone.layers, DEVIATIONS)
    assert len(found["by_layer"]) == searched.backbone.layers + 1
    assert found["by_layer"][found["best"]] == max(found["by_layer"]) > 0


def test_without_a_covariance_it_is_the_distance_of_the_means(searched, tmp_path):
    collected = read_collected(searched.folder)
    write_collected(tmp_path / MEANS, replace(collected, separations={}, domains={}))
    found = collect_findings(tmp_path)
    assert found["domains"] == {}
    assert found["separation"]["unit"] == RELATIVE
    site, directions = found["separation"]["best"], collected.directions
    shares = directions.difference[site].norm(dim=-1) / directions.benign[site].norm(dim=-1)
    assert found["separation"]["by_layer"][site] == pytest.approx(float(torch.max(shares)), abs=1e-4)


def test_search_says_what_was_chosen_and_how_far_it_relaxes(searched):
    written, found = json.loads((searched.folder / FRONT).read_text()), search_findings(searched.folder)
    assert found["chosen"]["trial"] == written["front"][0]["trial"]
    assert set(found["chosen"]) >= {"method", "direction", "peak", "width", "strength"}
    score = found["target_refusal_score"]
    assert score["after"] == written["front"][0]["target_refusal_score"] < score["before"]
    assert (found["trials"], found["feasible"]) == (6, written["feasible"])
    assert found["audit"]["target_refusal"]["before"]["rate"] == 1.0
    assert set(found["audit"]) == {"target_refusal", "target_degenerate", "preserved_refusal"}


@pytest.mark.parametrize(("after", "relaxes"), [(0.25, True), (1.0, False)])
def test_whole_replies_decide_whether_anything_relaxes(searched, tmp_path, after, relaxes):
    written = json.loads((searched.folder / FRONT).read_text())
    for row in written["audit"]["trials"]:
        row["target_refusal"]["rate"] = 1.0
    written["audit"]["trials"][-1]["target_refusal"]["rate"] = after
    (tmp_path / "search").mkdir()
    (tmp_path / FRONT).write_text(json.dumps(written))
    found = search_findings(tmp_path)
    assert found["relaxes"] is relaxes
    assert found["audited"] == {"trials": 2, "relaxing": int(relaxes)}


@pytest.mark.parametrize("gone", ["backbone", "trials"])
def test_without_whole_replies_the_score_decides(searched, tmp_path, gone):
    written = json.loads((searched.folder / FRONT).read_text())
    written["audit"][gone] = None if gone == "backbone" else []
    (tmp_path / "search").mkdir()
    (tmp_path / FRONT).write_text(json.dumps(written))
    found = search_findings(tmp_path)
    assert found["audit"] == {}
    assert found["relaxes"] is True


def test_a_folder_without_them_is_an_error(tmp_path):
    for findings in (collect_findings, search_findings):
        with pytest.raises(OutputError, match=r"an artefact must (exist|be a safetensors file)"):
            findings(tmp_path)
