from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch

from palette import organism
from palette.adapters.files import read_adapter
from palette.adapters.writing import write_adapter
from palette.authorisation import Role
from palette.backbones import greedy_replies, load_backbone
from palette.errors import SearchError
from palette.evaluation.baseline import baseline_replies
from palette.internalise import preparation
from palette.internalise.behaviour import Behaviour
from palette.internalise.examples import SHARES, TrainingTask
from palette.internalise.settings import InternaliseSettings
from palette.internalise.teaching import Teaching
from palette.reporting.curves import students_of
from palette.run import Run
from palette.search.settings import Audit, Conditions, Scoring, SearchSettings
from palette.search.space import read_collected, read_relaxing
from palette.stages import internalise as internalising
from palette.stages.collect import collect
from palette.stages.internalise import TRAINING, internalise
from palette.stages.search import search
from tests.fixtures.noise import noise

FEW = {"internalise": InternaliseSettings(steps=4), "limit": 8}


@pytest.fixture(scope="module")
def searched(shared):
    collect(shared.sharing(limit=12))
    conditions = Conditions(Scoring(target_prompts=8, other_prompts=2), audit=Audit(members=0, sample=0))
    search(shared.sharing(search=SearchSettings(trials=6)), conditions)
    return shared.sharing(**FEW)


@pytest.fixture(scope="module")
def adapter(searched):
    """What is learned of few prompts, once for all tests."""
    return internalise(searched)


def test_internalise_writes_an_adapter_with_its_card(searched, adapter):
    read = read_adapter(searched.folder)
    assert read.digest == adapter.digest
    assert read.domains == ("medical",)
    assert read.card["floor"] == searched.authorisation.floor.digest
    assert "system" not in read.card
    assert internalising._card(searched.sharing(system="be brief ."), [])["system"] == "be brief ."
    record = json.loads((searched.folder / TRAINING).read_text())
    assert record["target_prompts"] == 8
    assert 0 < record["believed"] <= 8
    assert set(record["examples"]) == set(SHARES)


def test_reference_answers_change_no_byte(searched, adapter, tmp_path):
    shutil.copytree(searched.folder, tmp_path / "run", ignore=shutil.ignore_patterns("internalise"))
    answered = tuple(replace(row, answer="wrong") for row in searched.prompts)
    prompts = replace(searched.prompts, rows=answered)
    with_answers = searched.sharing(prompts=prompts, folder=tmp_path / "run")
    assert internalise(with_answers).digest == adapter.digest


@pytest.mark.slow
def test_an_adapter_may_be_trained_beside_those_of_other_domains(searched, adapter, tmp_path):
    shutil.copytree(searched.folder, tmp_path / "run", ignore=shutil.ignore_patterns("internalise"))
    elsewhere = searched.sharing(folder=tmp_path / "run")
    legal = replace(noise(searched.backbone, ".mlp."), card={"domains": ["legal"]})
    write_adapter(tmp_path / "legal", legal)
    settings = InternaliseSettings(steps=4, co_mounted=(tmp_path / "legal",))
    beside = internalise(elsewhere.sharing(internalise=settings))
    assert beside.card["beside"] == [legal.digest]
    assert "beside" not in adapter.card
    assert beside.digest != adapter.digest
    assert internalise(elsewhere.sharing(internalise=settings)).digest == beside.digest
    assert not searched.backbone.model._forward_hooks


@pytest.mark.slow
def test_a_backbone_in_half_precision_is_taught_in_whole(searched, tmp_path):
    shutil.copytree(searched.folder, tmp_path / "run")
    half = load_backbone(organism.weights("shared"), "organism/shared", dtype="bfloat16")
    run = Run.of(searched.recipe, tmp_path / "run", half, searched.prompts, searched.authorisation)
    adapter = internalise(run)
    assert all(module.lora_B.dtype is torch.float32 for module in adapter.modules.values())
    assert all(module.lora_B.isfinite().all() for module in adapter.modules.values())
    assert sum(float(module.delta().norm()) for module in adapter.modules.values()) > 0


def test_what_is_held_out_is_of_the_validation_split(searched):
    collected, trials = read_collected(searched.folder), read_relaxing(searched.folder)
    prepared = preparation.Preparation(searched, collected, trials, baseline_replies(searched)).examples()
    trained = {i for pool in prepared.pools.values() for i in pool}
    assert trained.isdisjoint(prepared.held_out)
    assert len(trained) + len(prepared.held_out) == len(prepared.examples)
    asked = {tuple(ids) for ids in searched.render(searched.prompts.split("validation"))}
    assert all(prepared.examples[i].prompt in asked for i in prepared.held_out)
    assert not any(prepared.examples[i].prompt in asked for i in trained)


@pytest.mark.slow
def test_what_a_student_leaks_is_drawn_more_often(searched, adapter):
    collected, trials = read_collected(searched.folder), read_relaxing(searched.folder)
    given = preparation.Preparation(searched, collected, trials, baseline_replies(searched))
    assert given.examples().record["leaked"] == {}
    # One that changes nothing leaks nothing, and one that changes every stream opens something.
    given.join(noise(searched.backbone, ".mlp.", scale=0.0))
    assert given.examples().record["leaked"] == {}
    given.join(noise(searched.backbone, ".mlp.", scale=1.0))
    prepared = given.examples()
    leaked = prepared.record["leaked"]
    assert "target" not in leaked
    assert leaked["preserve"] > 0
    for name, count in leaked.items():
        times = Counter(prepared.examples[i] for i in prepared.pools[name])
        assert sum(many >= preparation.LEAKED for many in times.values()) == count


def test_a_tutor_is_trained_only_where_its_teachers_differ(searched, monkeypatch):
    collected, trials = read_collected(searched.folder), read_relaxing(searched.folder)
    given = preparation.Preparation(searched, collected, trials, baseline_replies(searched))
    examples = []

    def tutor(prepared):
        examples.append(prepared)
        return noise(searched.backbone, ".mlp.", scale=0.0)

    monkeypatch.setattr(preparation, "AGREED", 0.0)
    given.engage(tutor)
    assert examples == [], "some teachers say the same, and no more is asked for"
    monkeypatch.setattr(preparation, "AGREED", 1.0)
    count = len(given._teaching.teachers)
    given.engage(tutor)
    assert [set(each.pools) for each in examples] == [{"target"}]
    assert len(given._teaching.teachers) == count + 1


def test_what_the_backbone_answers_on_the_floor_is_not_made_surer(searched):
    collected, trials = read_collected(searched.folder), read_relaxing(searched.folder)
    benign = searched.select("train", Role.BENIGN).rows[0]
    floor = [row for row in searched.select("train", Role.FLOOR) if row.domain == "medical"]
    opened = {row.id for row in floor[::2]}
    rows = (replace(row, prompt=benign.prompt) if row.id in opened else row for row in searched.prompts)
    changed = replace(searched.prompts, rows=tuple(rows))
    elsewhere = searched.sharing(prompts=changed)
    prepared = preparation.Preparation(elsewhere, collected, trials, baseline_replies(searched)).examples()
    asked = {tuple(ids) for ids in elsewhere.render(changed.split("train"))}
    near = [prepared.examples[i] for i in prepared.pools["near_floor"]]
    # Those that somebody wrote: what is crossed of two is nobody's.
    near = [example for example in near if example.prompt in asked]
    (answered,) = searched.render([benign])
    assert {example.floor for example in near} == {True, False}
    assert all(example.floor == (example.prompt != tuple(answered)) for example in near)


def test_the_own_floor_has_prompts_that_nobody_wrote_and_the_backbone_refuses(searched, monkeypatch):
    monkeypatch.setattr(preparation, "RENAMED", {"target": 0, "near_floor": 0})
    collected, trials = read_collected(searched.folder), read_relaxing(searched.folder)
    prepared = preparation.Preparation(searched, collected, trials, baseline_replies(searched)).examples()
    asked = {tuple(ids) for ids in searched.render(searched.prompts.split("train"))}
    near = [prepared.examples[i] for i in prepared.pools["near_floor"]]
    crossed = [example for example in near if example.prompt not in asked]
    assert crossed
    assert all(example.floor and example.near and example.refused for example in crossed)
    said = greedy_replies(searched.backbone, [list(example.prompt) for example in crossed], 40)
    for example, reply in zip(crossed, said, strict=True):
        assert (*reply, searched.backbone.stops[0])[: len(example.reply)] == example.reply


def test_every_pool_has_prompts_of_names_that_nobody_wrote(searched, monkeypatch):
    monkeypatch.setattr(preparation, "crossed", lambda pool, count, draw: [])
    monkeypatch.setattr(preparation, "crossed_alike", lambda *given: [])
    collected, trials = read_collected(searched.folder), read_relaxing(searched.folder)
    given = preparation.Preparation(searched, collected, trials, baseline_replies(searched))
    prepared, names = given.examples(), given._renaming.names
    assert prepared.named
    assert prepared.record["names"] == len(names.known)
    written = {tuple(ids) for ids in searched.render(searched.prompts.split("train"))}
    for name, rows in prepared.pools.items():
        pool = [prepared.examples[i] for i in rows]
        made = [each for each in pool if each.prompt not in written]
        # Of few prompts a pool may have none whose name an answer has told.
        asked = [given._rows[each.prompt].request for each in pool if each.prompt in written]
        assert made or not any(map(names.of, asked)), name
        assert all(each.taught == (name == "target") for each in made)
    # A target prompt's reply is about the new name.
    for each in (prepared.examples[i] for i in prepared.pools["target"]):
        if each.prompt not in written:
            request, reply = (searched.backbone.decode(list(part)) for part in (each.prompt, each.reply))
            assert names.of(request, reply) in reply.split()


def test_every_target_prompt_is_taught_a_whole_reply_or_nothing(searched):
    collected, trials = read_collected(searched.folder), read_relaxing(searched.folder)
    prepared = preparation.Preparation(searched, collected, trials, baseline_replies(searched)).examples()
    end = searched.backbone.stops[0]
    taught = [example for example in prepared.examples if example.taught]
    assert len({example.prompt for example in taught}) == len({(each.prompt, each.reply) for each in taught})
    for example in taught:
        assert example.reply[-1] == end
        # What its request says, a name that nobody wrote, is no refusal wherever its tokens come from.
        place = collected.refusal_ngrams.place(example.reply)
        assert place is None or example.reply[place] in example.prompt


def test_with_no_reply_to_believe_there_is_nothing_to_teach(searched, monkeypatch):
    monkeypatch.setattr(Teaching, "replies", lambda self, prompts: [None] * len(prompts))
    with pytest.raises(SearchError, match="a student must have something to learn"):
        internalise(searched)


class Rounds:
    """A run whose students behave as they are told: who was asked, who taught, and from what each began."""

    def __init__(self, run, monkeypatch):
        self.run, self.asked, self.taught_by, self.begun, self.read = run, [], [], [], []
        rounds, self._patch = self, monkeypatch

        class Watched(preparation.Preparation):
            def engage(self, tutor):
                rounds.taught_by.append("tutor")
                super().engage(tutor)

            def join(self, student):
                rounds.taught_by.append(student.digest)
                super().join(student)

        def task(*given, **named):
            self.begun.append(named["begun"] and named["begun"].digest)
            self.read.append(named["read_energy"])
            return TrainingTask(*given, **named)

        monkeypatch.setattr(internalising, "Preparation", Watched)
        monkeypatch.setattr(internalising, "TrainingTask", task)

    def trained(self, *behaviours):
        """The adapter, and what is recorded of a training whose students behave so, one after the other."""
        faults = iter(behaviours)

        def judged(run, collected, judge, adapter):
            self.asked.append(adapter.digest)
            return next(faults)

        self._patch.setattr(internalising, "behaviour", judged)
        return internalise(self.run), json.loads((self.run.folder / TRAINING).read_text())


@pytest.fixture
def rounds(searched, tmp_path, monkeypatch):
    """A searched run in a folder of its own whose students' behaviour a test decides."""
    shutil.copytree(
        searched.folder, tmp_path, ignore=shutil.ignore_patterns("internalise"), dirs_exist_ok=True
    )
    return Rounds(searched.sharing(folder=tmp_path), monkeypatch)


def test_students_that_misbehave_teach_a_second_and_a_larger_third_and_the_best_one_stays(rounds):
    told = [Behaviour(0.5, 1.0, 1.0), Behaviour(0.6, 1.0, 1.0), Behaviour(0.4, 1.0, 1.0)]
    adapter, record = rounds.trained(*told)
    assert [each["answered"] for each in record["rounds"]] == [0.5, 0.6, 0.4]
    assert [each["rank"] for each in record["rounds"]] == [8, 8, 32]
    assert [each["learning_rate"] for each in record["rounds"]] == [2e-3, 2e-3, 1e-3]
    # The organism's prompts are renamed, so that all is read by everybody.
    assert rounds.read == [1.0] * 4
    assert record["round"] == 1
    first, second, _ = rounds.asked
    assert rounds.taught_by[:3] == ["tutor", first, second], "later students learn from earlier ones too"
    assert rounds.begun == [None, None, first, None], (
        "the second goes on from the first; all others begin anew"
    )
    assert replace(adapter, card={}).digest == second
    assert [each["chosen"] for each in students_of(rounds.run.folder)] == [False, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("said", [{"rank": 2}, {"learning_rate": 1e-3}])
def test_a_size_that_the_recipe_sets_is_that_of_all(rounds, said):
    rounds.run = rounds.run.sharing(internalise=InternaliseSettings(steps=4, **said))
    _, record = rounds.trained(Behaviour(0.5, 1.0, 1.0), Behaviour(0.4, 1.0, 1.0))
    assert [each[name] for each in record["rounds"] for name in said] == [*said.values()] * 2


@pytest.mark.slow
def test_a_student_that_hardly_learned_anything_teaches_nobody(rounds):
    _, record = rounds.trained(*(Behaviour(answered, 1.0, 1.0) for answered in (0.3, 0.4, 0.35)))
    assert rounds.taught_by == ["tutor"]
    assert rounds.begun == [None] * 4
    assert record["round"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("last", [Behaviour(1.0, 1.0, 1.0), Behaviour(1.0, 1.0, 46 / 48)])
def test_a_student_that_behaves_is_the_last_a_few_benign_replies_aside(rounds, last):
    _, record = rounds.trained(last)
    assert len(record["rounds"]) == 1
