from __future__ import annotations

import json

import pytest

from palette.errors import SearchError
from palette.stages.collect import CollectSettings, collect
from palette.stages.search import ARTEFACT, JOURNAL, SearchSettings, read_front, search

FEW = SearchSettings(trials=6, target_prompts=8, other_prompts=2)


@pytest.fixture
def collected(elsewhere):
    collect(elsewhere, CollectSettings(prompts=12, fewest=8))
    return elsewhere


def test_search_writes_a_front_that_reads_back(collected):
    front = search(collected, FEW)
    assert read_front(collected.folder) == front
    written = json.loads((collected.folder / ARTEFACT).read_text())
    assert written["trials"] == 6
    assert len(written["all"]) == 6
    assert written["backbone"]["target_refusal_score"] > 2
    assert "nearest to the ideal point" in written["rule"]
    assert (collected.folder / JOURNAL).is_file()


def test_search_again_runs_no_trial(collected):
    front = search(collected, FEW)
    before = (collected.folder / ARTEFACT).read_bytes()
    assert search(collected, FEW) == front
    assert (collected.folder / ARTEFACT).read_bytes() == before


def test_no_feasible_trial_is_an_error_and_keeps_the_study(collected):
    strict = FEW.model_copy(update={"divergence_limit": 1e-12})
    with pytest.raises(SearchError, match="at least one trial must keep benign replies"):
        search(collected, strict)
    assert (collected.folder / JOURNAL).is_file()
