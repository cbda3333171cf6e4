from __future__ import annotations

import json
import stat
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.backbones import greedy_replies
from palette.evaluation import replies as asking
from palette.evaluation.replies import Replies, ReplyFile, Tally
from palette.evaluation.settings import EvaluateSettings, GateSettings
from palette.evaluation.subjects import Subject
from palette.files import cache_folder
from palette.judging.judge import Label, Verdict
from palette.judging.rules import RuleJudge
from palette.prompts import messages
from palette.recipe import create_recipe
from palette.run import Run
from palette.stages import measuring
from palette.stages.evaluate import report_on
from tests.fixtures.noise import noise

LIMIT = 6
SMALL = {"limit": 2, "reply_tokens": 16}


def adapter(backbone) -> Adapter:
    return noise(backbone, "model.layers.0.mlp.up_proj", scale=1.0)


@pytest.fixture
def offline(monkeypatch):
    """From here on nothing may be generated."""

    def stop() -> None:
        def refuse(*given: object) -> None:
            raise AssertionError("a reply was generated again")

        monkeypatch.setattr(asking, "answered", refuse)

    return stop


def test_replies_are_generated_once(shared, prompts, tmp_path, offline):
    whole = greedy_replies(shared.backbone, prompts, LIMIT)
    first = Replies(tmp_path)
    assert first.of(Subject(shared.backbone), prompts, [LIMIT] * len(prompts)) == whole
    assert first.tally.generated == len(prompts)
    offline()
    second = Replies(tmp_path)
    assert second.of(Subject(shared.backbone), prompts[::-1], [LIMIT] * len(prompts)) == whole[::-1]
    assert (second.tally.generated, second.tally.known) == (0, len(prompts))


def test_what_decides_a_reply_decides_its_key(shared, prompts, tmp_path):
    asked, limits = prompts[:3], [LIMIT] * 3
    one = Replies(tmp_path)
    plain = one.of(Subject(shared.backbone), asked, limits)
    assert one.of(Subject(shared.backbone, adapter(shared.backbone)), asked, limits) != plain
    assert one.of(Subject(shared.backbone), asked, [2, 2, LIMIT]) == [plain[0][:2], plain[1][:2], plain[2]]
    other = replace(shared.backbone, fingerprint="another")
    one.of(Subject(other), asked, limits)
    assert (one.tally.generated, one.tally.known) == (3 + 3 + 2 + 3, 1)
    assert len(list(tmp_path.iterdir())) == 3


def test_the_adapter_is_mounted_for_what_is_generated_alone(shared, prompts, tmp_path):
    found = Replies(tmp_path).of(Subject(shared.backbone, adapter(shared.backbone)), prompts[:3], [LIMIT] * 3)
    with mounted(shared.backbone.model, adapter(shared.backbone)):
        assert greedy_replies(shared.backbone, prompts[:3], LIMIT) == found
    assert greedy_replies(shared.backbone, prompts[:3], LIMIT) != found


def test_what_is_kept_is_for_its_owner_and_holds_no_prompt(shared, prompts, tmp_path):
    folder = tmp_path / "cache" / "replies"
    Replies(folder).of(Subject(shared.backbone), prompts, [LIMIT] * len(prompts))
    (path,) = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    text = path.read_text()
    for prompt in prompts:
        assert json.dumps(prompt, separators=(",", ":"))[1:-1] not in text
    for key, reply, _ in map(json.loads, text.splitlines()):
        assert len(key) == 64
        assert len(reply) <= LIMIT


def test_without_a_folder_or_an_identity_nothing_is_kept(shared, prompts, tmp_path):
    for keeping, backbone in ((None, shared.backbone), (tmp_path, replace(shared.backbone, fingerprint=""))):
        once = Replies(keeping)
        once.of(Subject(backbone), prompts[:2], [LIMIT] * 2)
        once.of(Subject(backbone), prompts[:2], [LIMIT] * 2)
        assert once.tally.generated == 4
    assert list(tmp_path.iterdir()) == []


REPLIES = {f"{i:064x}": list(range(i, i + 4)) for i in range(6)}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 700), flip=st.none() | st.tuples(st.integers(0, 600), st.integers(0, 255)))
def test_a_damaged_file_loses_lines_and_never_tells_a_wrong_one(tmp_path, cut, flip):
    path = tmp_path / f"{cut}-{flip}.jsonl"
    path.unlink(missing_ok=True)
    ReplyFile(path).add(REPLIES)
    data = bytearray(path.read_bytes())
    if flip and flip[0] < len(data):
        data[flip[0]] = flip[1]
    path.write_bytes(data[:cut])
    held = ReplyFile(path)
    assert all(held.get(key) in (None, reply) for key, reply in REPLIES.items())
    held.add(REPLIES)
    again = ReplyFile(path)
    assert {key: again.get(key) for key in REPLIES} == REPLIES
    assert len(again) == len(REPLIES)
    path.unlink()


def test_a_reply_never_changes(tmp_path):
    kept = ReplyFile(tmp_path / "kept.jsonl")
    kept.add({"a": [1]})
    kept.add({"a": [2], "b": [3]})
    ReplyFile(tmp_path / "other.jsonl").add({"a": [9]})
    both = [(tmp_path / name).read_bytes() for name in ("kept.jsonl", "other.jsonl")]
    (tmp_path / "kept.jsonl").write_bytes(b"".join(both))
    again = ReplyFile(tmp_path / "kept.jsonl")
    assert (again.get("a"), again.get("b"), again.get("c")) == ([1], [3], None)


class Strict:
    """A judge that calls every reply a refusal."""

    fingerprint = "strict"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def verdicts(self, prompts: list[str], replies: list[str]) -> list[Verdict]:
        self.asked += prompts
        return [Verdict(Label.REFUSAL) for _ in replies]


def test_another_judge_and_other_limits_generate_nothing(shared, tmp_path, offline, monkeypatch):
    monkeypatch.setenv("PALETTE_CACHE", str(tmp_path / "cache"))
    run = shared.sharing(folder=tmp_path / "run", keep_replies=True, **SMALL)
    first = report_on(run, adapter(shared.backbone), RuleJudge())
    before = (tmp_path / "run" / "report.json").read_bytes()
    timing = json.loads((tmp_path / "run" / measuring.TIMING).read_text())
    assert timing["generated"] > 0
    assert timing["tokens_per_second"] > 0
    offline()
    again = report_on(run, adapter(shared.backbone), RuleJudge())
    assert again == first
    assert (tmp_path / "run" / "report.json").read_bytes() == before
    strict = Strict()
    lenient = run.sharing(evaluate=EvaluateSettings(gate=GateSettings(target_refusal=0.4)))
    judged = report_on(lenient, adapter(shared.backbone), strict)
    dumped = judged.model_dump(mode="json")
    assert dumped["provenance"]["judge"] == "strict"
    rates = [k["refusal"]["rate"] for kinds in dumped["adapted"]["domains"].values() for k in kinds.values()]
    assert set(rates) == {1.0}
    assert all(strict.asked), "a judge is told what each reply answers"
    assert json.loads((tmp_path / "run" / measuring.TIMING).read_text())["generated"] == 0


def test_a_run_s_folder_holds_no_reply(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("PALETTE_CACHE", str(tmp_path / "cache"))
    run = shared.sharing(folder=tmp_path / "run", keep_replies=True, **SMALL)
    report_on(run, None, RuleJudge())
    files = [path.read_text() for path in (tmp_path / "cache" / "replies").iterdir()]
    rows = [json.loads(line) for text in files for line in text.splitlines()]
    said = {shared.backbone.decode(reply) for _, reply, _ in rows if len(reply) > 3}
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not [reply for reply in said if reply in text]


def test_where_replies_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("PALETTE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("PALETTE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "palette"
    for keep, folder in ((True, cache_folder() / "replies"), (False, None)):
        recipe = create_recipe(
            {"model": "organism/shared", "authorise": ["medical"], "keep_replies": keep}, []
        )
        assert Run(recipe, tmp_path).replies_folder == folder


def test_a_tally_without_replies_has_no_speed():
    assert Tally().to_json()["tokens_per_second"] == 0.0


def test_replies_behind_another_system_prompt_or_to_another_end_are_not_taken_for_these(
    shared, prompts, tmp_path, offline
):
    rows = shared.prompts.split("test").rows[:2]
    plain, limits = shared.render(rows), [LIMIT] * 2
    framed = replace(shared.backbone, system="be brief .")
    Replies(tmp_path).of(Subject(shared.backbone), plain, limits)
    ended = replace(shared.backbone)
    vars(ended)["stops"] = (*shared.backbone.stops, 5)
    offline()
    behind = [framed.render(messages(row)) for row in rows]
    assert Replies(tmp_path).of(Subject(framed), plain, limits)
    for subject, asked in ((Subject(framed), behind), (Subject(ended), plain)):
        with pytest.raises(AssertionError, match="a reply was generated again"):
            Replies(tmp_path).of(subject, asked, limits)


def test_drawn_replies_depend_on_their_seed_and_are_kept_apart_from_greedy_ones(shared, prompts, tmp_path):
    limits = [LIMIT] * len(prompts)
    # One that is less sure than the organism itself, whose draws are its likeliest tokens.
    unsure = adapter(shared.backbone)
    source = Replies(tmp_path)
    greedy = source.of(Subject(shared.backbone, unsure), prompts, limits)
    drawn = [source.of(Subject(shared.backbone, unsure, seed=seed), prompts, limits) for seed in (1, 2)]
    assert drawn[0] != drawn[1]
    assert greedy not in drawn
    again = Replies(tmp_path)
    assert again.of(Subject(shared.backbone, unsure, seed=1), prompts, limits) == drawn[0]
    assert again.tally.generated == 0
    # A draw depends on who is asked beside, so that fewer prompts are other draws.
    fewer = Replies(tmp_path)
    fewer.of(Subject(shared.backbone, unsure, seed=1), prompts[:2], limits[:2])
    assert fewer.tally.generated == 2
