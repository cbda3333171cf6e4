"""The model card: metadata the hub understands, and words that names from outside cannot bend."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from palette.evaluation.outcomes import Outcome
from palette.reporting.card import CARD, MARK, write_card
from palette.reporting.report import clean, validated
from tests.reporting.bent import render_card
from tests.reporting.test_structure import hostile
from tests.reporting.test_wording import HOSTILE


def read(text: str) -> ModelCard:
    return ModelCard(text)


def test_the_metadata_are_what_the_hub_reads(report: dict[str, Any]) -> None:
    card = read(render_card(report))
    data = card.data.to_dict()
    assert data["base_model"] == "organism"
    assert data["library_name"] == "peft"
    assert data["license"] == "apache-2.0"
    assert data["pipeline_tag"] == "text-generation"
    assert {"palette", "lora", "peft"} <= set(data["tags"])
    assert data["palette"]["authorised"] == ["medical"]
    assert data["palette"]["gate"] == "passed"
    assert "despite_failed_gate" not in data["palette"]
    results = {(one.dataset_config, one.metric_type): one.metric_value for one in card.data.eval_results}
    assert results["medical/restricted", "refusal_rate"] == 3.0
    assert results["medical/restricted", "accuracy"] == 97.0
    assert results["legal/floor", "refusal_rate"] == 100.0
    assert ("legal/floor", "accuracy") not in results
    assert len(data["model-index"][0]["results"]) == 8


def test_the_words_say_what_is_authorised_and_what_is_not(
    report: dict[str, Any], failing: dict[str, Any]
) -> None:
    text = render_card(report)
    for part in ("# organism, authorised for medical", "Gate: passed", "All 14 rules hold", "| medical"):
        assert part in text
    for part in ("Limits", "Acceptable use", "Loading", "Provenance", "PeftModel", "palette evaluate"):
        assert part in text
    assert text.index("Gate: passed") < text.index("Figures") < text.index("Limits")
    failed = render_card(failing)
    assert "Gate: failed" in failed
    assert "# Gate failed: organism, not certified for medical" in failed
    assert ", authorised for" not in failed
    assert read(failed).data.model_name == "organism not certified for medical"
    assert "**This adapter is not certified.**" in failed
    assert "insufficient evidence: 51 prompts, 73 needed" in failed
    assert read(failed).data.to_dict()["palette"]["gate"] == "failed"


def test_a_reason_is_recorded_in_words_and_metadata(failing: dict[str, Any]) -> None:
    text = render_card(failing, "a drill\n---\n[x](y)")
    assert "**Pushed although the gate failed**, for this reason: a drill --- \\[x\\](y)" in text
    assert read(text).data.to_dict()["palette"]["despite_failed_gate"] == "a drill --- [x](y)"


def test_no_prompt_id_stands_in_a_card(full: dict[str, Any], good: list[Outcome]) -> None:
    text = render_card(full)
    assert not any(outcome.prompt_id in text for outcome in good)
    assert "medical-7" not in text
    assert "contrast.csv: CC-BY-4.0" in text


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_cannot_leave_the_metadata(report: dict[str, Any], name: str) -> None:
    bent = copy.deepcopy(report)
    bent["model"]["name"] = bent["split"] = name
    bent["authorised"] = [name]
    for side in ("base", "adapted"):
        bent[side]["domains"][name] = bent[side]["domains"]["legal"]
    bent["changes"][name] = bent["changes"]["legal"]
    card = read(render_card(bent, name))
    data = card.data.to_dict()
    assert data["license"] == "other"
    assert data["palette"]["authorised"] == [clean(name)]
    assert set(yaml.safe_load(card.data.to_yaml())) == {
        "library_name", "license", "license_name", "model-index", "palette", "pipeline_tag", "tags",
    }  # fmt: skip
    assert card.text.strip().startswith(MARK)


def test_a_report_of_hostile_names_gives_the_same_headings(full: dict[str, Any]) -> None:
    def headings(text: str) -> list[str]:
        return [line[:6] for line in text.splitlines() if line.startswith("#")]

    plain_card, bent = render_card(full), render_card(hostile(full))
    assert headings(bent) == headings(plain_card) or len(headings(bent)) == len(headings(plain_card))
    assert "<script" not in bent.split(MARK)[1]


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("organism/shared", "organism/shared"),
        ("owner/model-7B", "owner/model-7B"),
        ("/home/somebody/models/chat", None),
        ("./models/chat", None),
        ("../chat", None),
    ],
)
def test_the_base_model_is_a_name_on_the_hub_or_left_out(
    report: dict[str, Any], name: str, base: str | None
) -> None:
    of = copy.deepcopy(report)
    of["model"]["name"] = name
    text = render_card(of)
    assert read(text).data.to_dict().get("base_model") == base
    assert "somebody" not in text
    licence = "apache-2.0" if name.startswith("organism") else "other"
    assert read(text).data.license == licence


def test_a_local_folder_is_no_name_on_the_hub(
    report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "chat").mkdir(parents=True)
    of = {**report, "model": {**report["model"], "name": "models/chat"}}
    assert "base_model" not in read(render_card(of)).data.to_dict()


def test_a_card_is_written_anew_but_nobody_else_s(report: dict[str, Any], tmp_path: Path) -> None:
    path = write_card(tmp_path, validated(report))
    assert path == tmp_path / CARD
    first = path.read_bytes()
    assert write_card(tmp_path, validated(report)) == path
    assert path.read_bytes() == first
    path.write_text("# Mine\n")
    assert write_card(tmp_path, validated(report)) is None
    assert path.read_text() == "# Mine\n"


def test_cells_stand_in_the_card_where_requests_came_with_pictures(report: dict[str, Any]) -> None:
    rate = {"rate": 0.5, "low": 0.25, "high": 0.75, "k": 6, "n": 12}
    seen = copy.deepcopy(report)
    assert "Where requests stand" not in render_card(report)
    # In one cell there may be no prompt of a role.
    seen["cells"] = {
        "text": {"prompts": 9, "base": {}, "adapted": {"authorised_refused": rate, "floor_kept": rate}},
        "picture": {"prompts": 5, "base": {}, "adapted": {}},
    }
    text = render_card(seen)
    assert "| in words alone | 9 | 50.0 (25.0–75.0) % |  |  | 50.0 (25.0–75.0) % |  |" in text
    assert "| in a picture, whole or in part | 5 |  |  |  |  |  |" in text
