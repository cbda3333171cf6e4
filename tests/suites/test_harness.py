"""lm-eval in memory: the same choices as lm-eval's own way to the same model, with the adapter off and on."""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from palette.adapters.mounting import mounted
from palette.errors import PaletteError, PromptError
from palette.evaluation.lm_eval import undisturbed
from palette.suites import harness
from palette.suites.measures import measured
from palette.suites.tasks import reading

pytest.importorskip("lm_eval")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


MMLU = {"kind": "utility", "task": "mmlu", "data": "mmlu", "shots": 2, "batch": 4}


def run(measuring, adapted=True, **measure):
    [result] = measured(measuring(measure, adapted=adapted))
    return result


def mmlu(measuring, **more):
    return run(measuring, **{**MMLU, **more})


def own_command(found, folder: Path) -> dict[str, list[dict]]:
    """The samples that lm-eval's own command writes for the same questions, by task."""
    words = [sys.executable, "-m", *shlex.split(found.command), "--log_samples", "--output_path", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    files = {path.name.split("_20")[0].removeprefix("samples_"): path for path in folder.rglob("samples_*")}
    return {
        name: [json.loads(line) for line in files[name].read_text().splitlines()] for name in sorted(files)
    }


def test_a_system_prompt_stands_before_questions_in_the_template_alone(measuring, monkeypatch):
    plain = mmlu(measuring, chat=True, limit=3)
    monkeypatch.setattr(harness, "system", lambda one, run: "Be brief ." if one.chat else "")
    framed = mmlu(measuring, chat=True, limit=3)
    assert shlex.split(framed.command)[-2:] == ["--system_instruction", "Be brief ."]
    assert [item.digest for item in framed.items] != [item.digest for item in plain.items]
    assert "--system_instruction" not in mmlu(measuring, limit=3).command


def chosen(samples: list[dict]) -> list[str]:
    """The letters chosen."""
    return ["ABCD"[int(np.argmax([float(one[0]) for one in each["filtered_resps"]]))] for each in samples]


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"chat": True, "limit": 5}], ids=str)
def test_mmlu_is_what_lm_evals_own_command_finds(measuring, tmp_path, more):
    found = mmlu(measuring, **more)
    theirs = own_command(found, tmp_path / "theirs")
    letters, right = [], []
    for samples in theirs.values():
        letters += chosen(samples)
        right += [each["acc"] for each in samples]
    assert [item.outcomes[0] for item in found.items] == letters
    assert found.sides[0]["acc"].rate == sum(right) / len(right)
    assert len(set(letters)) > 1
    for name, samples in theirs.items():
        subject = found.sides[0][f"acc.{name.removeprefix('palette_mmlu_')}"]
        assert subject.rate == sum(each["acc"] for each in samples) / len(samples)


@pytest.mark.slow
def test_gsm8k_is_what_lm_evals_own_command_finds(measuring, tmp_path):
    found = run(
        measuring, kind="utility", task="gsm8k", data="gsm8k/test.jsonl", shots=2, batch=2, reply_tokens=8
    )
    [samples] = own_command(found, tmp_path / "theirs").values()
    for name, rate in found.sides[0].items():
        right = [each["exact_match"] for each in samples if each["filter"] == name]
        assert rate.rate == sum(right) / len(right)
        assert rate.n == 4


def test_the_model_of_a_folder_finds_the_same_to_the_last_bit(measuring):
    """What lm-eval loads itself from the same folder, in this process: equal log-likelihoods too."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    found = mmlu(measuring, adapted=False)
    whole = measuring(MMLU)
    folder, names = whole.folder / "tasks" / "utility", ["palette_mmlu_clinical_knowledge"]
    [measure] = whole.recipe.measures
    ours = harness.samples_of(measure, whole, folder, names, lambda count: None)
    with undisturbed():
        lm = HFLM(
            pretrained=str(whole.model_folder), dtype="float32", attn_implementation="eager",
            batch_size=4, device="cpu",
        )  # fmt: skip
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        theirs = simple_evaluate(model=lm, tasks=names, task_manager=manager, bootstrap_iters=0)["samples"]
    key = names[0]
    assert [each["filtered_resps"] for each in ours[key]] == [each["filtered_resps"] for each in theirs[key]]
    assert [item.outcomes[0] for item in found.items[:7]] == chosen(theirs[key])
    with mounted(whole.backbone.model, whole.adapter):
        other = harness.samples_of(measure, whole, folder, names, lambda count: None)
    # A harness that forgot the adapter, or left it on, would be caught here.
    assert [each["filtered_resps"] for each in other[key]] != [each["filtered_resps"] for each in ours[key]]


def test_both_sides_are_paired(measuring):
    found = mmlu(measuring)
    base, adapted = found.sides
    assert found.n == base["acc"].n == adapted["acc"].n == 14
    assert set(base) == {"acc", "acc.clinical_knowledge", "acc.college_chemistry"}
    assert found.change["gained"] - found.change["lost"] == adapted["acc"].k - base["acc"].k
    assert [item.expected for item in found.items[:7]] == list("AABBACD")
    assert len({item.id for item in found.items}) == 14
    assert found.source.source == "hendrycks/test"


def test_knowledge_takes_the_subjects_of_its_domain(measuring):
    found = run(measuring, kind="knowledge", domain="chemistry", data="mmlu", shots=0, limit=2)
    assert [item.id for item in found.items] == ["college_chemistry-0", "college_chemistry-1"]
    assert set(found.sides[0]) == {"acc"}


def test_global_generators_and_output_are_left_alone(measuring, capfd):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    with undisturbed():
        random.seed(9)
        np.random.seed(9)
        torch.manual_seed(9)
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.get_rng_state(), before[2])
    mmlu(measuring, adapted=False, limit=1)
    assert capfd.readouterr() == ("", "")


def test_cells_are_texts(data):
    """A reader that guesses types would ask other questions, and lose answers that read as missing."""
    read = reading.mmlu(folder=str(data / "mmlu"), subject="college_chemistry")
    assert read["test"][0]["b"] == "0.50"
    assert read["test"][0]["c"] == "None"
    assert read["test"][2]["a"] == "1.50"
    assert read["dev"][0]["d"] == "nan"
    assert read["test"][1]["question"] == 'Which word, of these, is quoted: "tea"?'
    guessed = __import__("pandas").read_csv(data / "mmlu" / "dev" / "college_chemistry_dev.csv", header=None)
    assert guessed[1][0] != "1.50"


def test_worked_examples_of_gsm8k_are_not_asked(data):
    read = reading.gsm8k(file=str(data / "gsm8k" / "test.jsonl"), shots=2)
    assert (len(read["dev"]), len(read["test"])) == (2, 4)
    assert not set(read["dev"]["question"]) & set(read["test"]["question"])


def test_a_subject_without_files(measuring):
    with pytest.raises(PromptError) as caught:
        mmlu(measuring, subjects=["astrology"])
    assert "got none of 'astrology'; choose of clinical_knowledge, college_chemistry" in str(caught.value)


def test_without_the_extra_one_sentence_names_it(measuring, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(PaletteError) as caught:
        mmlu(measuring)
    assert str(caught.value).endswith("got an environment without it; pip install palette-llm[eval]")
