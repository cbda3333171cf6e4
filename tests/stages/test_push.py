"""Pushing: what goes to the hub, what is refused, and what errors say. No network is touched."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from palette.adapters.files import open_adapter
from palette.adapters.lora import Adapter, BackboneIdentity, LoraModule
from palette.adapters.writing import write_adapter
from palette.errors import AdapterError, OutputError
from palette.evaluation.outcomes import Outcome
from palette.judging.judge import Label
from palette.reporting.card import MARK
from palette.stages.push import FILES, push
from tests.fixtures.crowds import crowd, good
from tests.reporting.conftest import failing, parts, report

__all__ = ["crowd", "failing", "good", "parts", "report"]

TOKEN = "hf_" + "s" * 30


class Hub:
    """A hub in memory, in the place of ``HfApi``."""

    def __init__(self) -> None:
        self.repositories: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.error: Exception | None = None

    def __call__(self) -> Hub:
        return self

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool = False) -> None:
        self.calls.append("create_repo")
        if self.error:
            raise self.error
        if repo_id in self.repositories and not exist_ok:
            raise refused(409, "you already created this model repo")
        self.repositories.setdefault(repo_id, private)

    def repo_info(self, repo_id: str) -> Any:
        return SimpleNamespace(private=self.repositories[repo_id])

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], commit_message: str
    ) -> Any:
        self.calls.append("upload_folder")
        assert commit_message
        assert set(allow_patterns) == set(FILES)
        self.files = {path.name: path.read_bytes() for path in Path(folder_path).rglob("*")}
        return SimpleNamespace(commit_url=f"https://hub.example/{repo_id}")


def refused(status: int, message: str) -> HfHubHTTPError:
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return HfHubHTTPError(f"{status} Client Error\n\n{message}", response=response, server_message=message)  # type: ignore[arg-type]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub


def laid(folder: Path, report: dict[str, Any], seed: int = 0) -> Path:
    """An adapter's folder with its report, and with files that are nobody's business."""
    generator = torch.Generator().manual_seed(seed)
    module = LoraModule(torch.randn(2, 6, generator=generator), torch.randn(5, 2, generator=generator))
    write_adapter(folder, Adapter({"layers.0.up_proj": module}, BackboneIdentity("organism")))
    digest = open_adapter(folder).digest
    stated = {**report, "provenance": {**report["provenance"], "adapter": digest}}
    (folder / "report.json").write_text(json.dumps(stated, indent=2) + "\n")
    (folder / "evaluate").mkdir()
    (folder / "evaluate" / "outcomes.json").write_text("[]")
    (folder / "evaluate" / "report.json").write_text("{}")
    (folder / "search.journal").write_text("secret")
    (folder / "run.json").write_text("{}")
    return folder


@pytest.fixture
def passed(tmp_path: Path, report: dict[str, Any]) -> Path:
    return laid(tmp_path / "medical", report)


@pytest.fixture
def failed(tmp_path: Path, failing: dict[str, Any]) -> Path:
    return laid(tmp_path / "broken", failing)


def test_only_adapter_card_and_report_are_uploaded_and_privately(hub: Hub, passed: Path) -> None:
    before = {path: path.read_bytes() for path in passed.rglob("*") if path.is_file()}
    found = push(passed, "clinic/medical")
    assert hub.repositories == {"clinic/medical": True}
    assert set(hub.files) == set(FILES)
    assert found["private"]
    assert found["url"] == "https://hub.example/clinic/medical"
    assert hub.files["report.json"] == before[passed / "report.json"]
    assert hub.files["adapter_model.safetensors"] == before[passed / "adapter_model.safetensors"]
    card = ModelCard(hub.files["README.md"].decode())
    assert card.data.to_dict()["palette"]["adapter"] == open_adapter(passed).digest
    assert b"Gate passed" in hub.files["report.html"]
    record = json.loads(hub.files["push.json"])
    assert record["despite_failed_gate"] is None
    assert json.loads((passed / "push.json").read_text()) == record
    assert {path: path.read_bytes() for path in before} == before
    assert {one["name"]: one["bytes"] for one in found["files"]} == {n: len(b) for n, b in hub.files.items()}


def test_public_is_a_choice(hub: Hub, passed: Path) -> None:
    assert not push(passed, "clinic/medical", public=True)["private"]
    assert hub.repositories == {"clinic/medical": False}


def test_a_second_push_goes_to_the_same_repository(hub: Hub, passed: Path) -> None:
    push(passed, "clinic/medical")
    push(passed, "clinic/medical")
    assert hub.calls == ["create_repo", "upload_folder"] * 2


def test_a_public_repository_is_refused_unless_it_was_meant(hub: Hub, passed: Path) -> None:
    hub.repositories["clinic/medical"] = False
    with pytest.raises(OutputError, match="a private repository unless --public is given, got a public one"):
        push(passed, "clinic/medical")
    assert hub.files == {}
    push(passed, "clinic/medical", public=True)
    assert hub.files


def test_a_dry_run_uploads_and_writes_nothing(hub: Hub, passed: Path) -> None:
    before = sorted(passed.rglob("*"))
    found = push(passed, "clinic/medical", dry_run=True)
    assert hub.calls == []
    assert sorted(passed.rglob("*")) == before
    assert {one["name"] for one in found["files"]} == set(FILES)
    dry = {one["name"]: one["bytes"] for one in found["files"]}
    assert dry == {one["name"]: one["bytes"] for one in push(passed, "clinic/medical")["files"]}


def test_a_failed_gate_is_refused(hub: Hub, failed: Path) -> None:
    for reason in (None, "", "  "):
        with pytest.raises(AdapterError) as caught:
            push(failed, "clinic/broken", reason=reason)
        assert "must pass the gate before it is pushed, got floor_refusal.weapons, divergence" in str(
            caught.value
        )
        assert "--despite-failed-gate" in str(caught.value)
    assert hub.calls == []


def passing(failing: dict[str, Any]) -> dict[str, Any]:
    """A report whose gate failed, made to say that it passed."""
    bent = copy.deepcopy(failing)
    bent["gate"]["passed"] = True
    for rule in bent["gate"]["rules"]:
        rule["passed"] = True
    return bent


@pytest.mark.parametrize("reason", [None, "a drill"])
def test_a_pass_that_does_not_follow_from_the_figures_is_refused(
    hub: Hub, failing: dict[str, Any], tmp_path: Path, reason: str | None
) -> None:
    folder = laid(tmp_path / "bent", passing(failing))
    with pytest.raises(AdapterError) as caught:
        push(folder, "clinic/broken", reason=reason)
    assert "the gate of a report must follow from its figures, got a pass of divergence.first_token" in str(
        caught.value
    )
    assert "floor_refusal" in str(caught.value)
    assert hub.calls == []


def test_the_outcomes_beside_a_report_are_counted_again(hub: Hub, passed: Path, good: list[Outcome]) -> None:
    kept = passed / "evaluate" / "outcomes.json"
    kept.write_text(json.dumps([outcome.to_json() for outcome in good]))
    assert push(passed, "clinic/medical")["gate_passed"]
    lost = [replace(o, label_adapted=Label.FULL_COMPLIANCE) if o.domain == "weapons" else o for o in good]
    kept.write_text(json.dumps([outcome.to_json() for outcome in lost]))
    with pytest.raises(AdapterError, match=r"a pass of figures, floor_refusal, floor_refusal\.weapons; run"):
        push(passed, "clinic/medical")
    for damage in ("{}", '[{"prompt_id": 1}]', "[3]", '[{"prompt_id": "x", "role": "nobody"}]'):
        kept.write_text(damage)
        with pytest.raises(OutputError, match="outcomes must be those that evaluate wrote"):
            push(passed, "clinic/medical")


def test_the_card_names_base_and_repository(hub: Hub, passed: Path, failed: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(passed.parent)
    (passed.parent / "organism").mkdir()
    push(passed, "clinic/medical")
    card = hub.files["README.md"].decode()
    assert 'from_pretrained("organism")' in card
    assert 'from_pretrained(model, "clinic/medical")' in card
    assert ModelCard(card).data.to_dict()["base_model"] == "organism"
    push(failed, "clinic/broken", reason="a drill")
    words = hub.files["README.md"].decode().partition(MARK)[2].split("\n")
    assert next(filter(None, words)) == "# Gate failed: organism, not certified for medical"


def test_a_reason_is_recorded_wherever_the_adapter_goes(hub: Hub, failed: Path) -> None:
    found = push(failed, "clinic/broken", reason="a drill\nfor the board")
    assert found["despite_failed_gate"] == "a drill for the board"
    record = json.loads(hub.files["push.json"])
    assert (record["gate_passed"], record["despite_failed_gate"]) == (False, "a drill for the board")
    card = hub.files["README.md"].decode()
    assert "Pushed although the gate failed" in card
    assert ModelCard(card).data.to_dict()["palette"]["despite_failed_gate"] == "a drill for the board"
    assert b"Gate failed" in hub.files["report.html"]


def test_a_reason_is_not_recorded_where_the_gate_passed(hub: Hub, passed: Path) -> None:
    assert push(passed, "clinic/medical", reason="just in case")["despite_failed_gate"] is None
    assert b"although the gate failed" not in hub.files["README.md"]


def test_no_report_is_refused_even_with_a_reason(hub: Hub, passed: Path) -> None:
    (passed / "report.json").unlink()
    with pytest.raises(AdapterError, match=r"measured before it is pushed, got no report\.json; run palette"):
        push(passed, "clinic/medical", reason="please")
    assert hub.calls == []


def test_the_report_of_another_adapter_is_refused_even_with_a_reason(
    hub: Hub, passed: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    other = laid(tmp_path / "other", report, seed=1)
    (passed / "report.json").write_bytes((other / "report.json").read_bytes())
    with pytest.raises(AdapterError, match="the report must be of the adapter beside it, got one of"):
        push(passed, "clinic/medical", reason="please")
    bare = json.loads((passed / "report.json").read_text())
    bare["provenance"]["adapter"] = None
    (passed / "report.json").write_text(json.dumps(bare))
    with pytest.raises(AdapterError, match="got one of no adapter, and the adapter"):
        push(passed, "clinic/medical")
    assert hub.calls == []


def test_a_report_that_breaks_its_schema_is_refused(hub: Hub, passed: Path) -> None:
    (passed / "report.json").write_text("{}")
    with pytest.raises(OutputError, match="a report must follow palette-report/1"):
        push(passed, "clinic/medical")


def test_a_folder_without_an_adapter_is_refused(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="push takes the folder of an adapter, got no folder"):
        push(tmp_path / "none", "clinic/medical")
    with pytest.raises(AdapterError, match=r"must hold adapter_model\.safetensors"):
        push(tmp_path, "clinic/medical")
    assert hub.calls == []


@pytest.mark.parametrize("name", ["a/b/c", "-x", "a b", "", "x" * 200, "a/../b"])
def test_a_name_that_the_hub_cannot_have_is_refused(hub: Hub, passed: Path, name: str) -> None:
    with pytest.raises(OutputError, match="a repository must be named owner/name"):
        push(passed, name)
    assert hub.calls == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError(f"refused while sending Bearer {TOKEN}"), "refused while sending Bearer …"),
        (refused(401, f"Invalid credentials {TOKEN}"), "status 401: Invalid credentials …"),
        (refused(403, "Forbidden"), "status 403: Forbidden"),
        (LocalTokenNotFoundError("Token is required"), "Token is required"),
        (ValueError("\x1b[31modd\nlines"), "odd"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_errors_of_the_network_are_one_sentence_without_a_token(
    hub: Hub, passed: Path, error: Exception, said: str
) -> None:
    hub.error = error
    with pytest.raises(OutputError) as caught:
        push(passed, "clinic/medical")
    message = str(caught.value)
    assert message.startswith("the hub must take the files, got ")
    assert said in message
    assert TOKEN not in message
    assert message.isprintable()
    assert not (passed / "push.json").exists()


def test_offline_the_real_library_says_so_in_one_sentence(passed: Path) -> None:
    with pytest.raises(OutputError, match=r"the hub must take the files, got .*offline"):
        push(passed, "clinic/medical")


def test_the_library_s_own_filter_takes_exactly_these_files(passed: Path) -> None:
    from huggingface_hub.utils import filter_repo_objects

    names = [str(path.relative_to(passed)) for path in passed.rglob("*")]
    kept = filter_repo_objects(
        [*names, *FILES, "evaluate/README.md", "push.json.bak"], allow_patterns=list(FILES)
    )
    assert set(kept) == set(FILES)


def test_a_card_of_somebody_else_stays_and_ours_is_uploaded(hub: Hub, passed: Path) -> None:
    (passed / "README.md").write_text("# Certified! Trust me\n")
    push(passed, "clinic/medical")
    assert (passed / "README.md").read_text() == "# Certified! Trust me\n"
    assert b"Trust me" not in hub.files["README.md"]


def test_nothing_that_is_pushed_says_where_somebody_keeps_things(hub: Hub, passed: Path) -> None:
    from palette.adapters.files import read_adapter

    home = "/home/somebody/models/llama"
    stated = json.loads((passed / "report.json").read_text())
    stated["model"]["name"] = home
    stated["provenance"]["recipe"] |= {"model": home, "prompts": [{"path": r"C:\somebody\prompts.csv"}]}
    (passed / "report.json").write_text(json.dumps(stated))
    own = read_adapter(passed)
    backbone, card = replace(own.backbone, name=home), {**own.card, "inputs": [f"{home}/a.safetensors"]}
    write_adapter(passed, replace(own, backbone=backbone, card=card))
    before = (passed / "adapter_model.safetensors").read_bytes()
    push(passed, "clinic/medical")
    assert not [name for name, content in hub.files.items() if b"somebody" in content]
    assert json.loads(hub.files["adapter_config.json"])["base_model_name_or_path"] == "llama"
    pushed = passed.parent / "pushed"
    pushed.mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (pushed / name).write_bytes(hub.files[name])
    assert read_adapter(pushed).digest == own.digest
    assert (passed / "adapter_model.safetensors").read_bytes() == before
