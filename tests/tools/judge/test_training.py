from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from palette.errors import JudgeError
from palette.judging.calibration import LabelledFile
from palette.judging.classifiers import TrainedJudge, load_trained_judge
from palette.judging.features import COLUMNS, Exchange, feature_table
from palette.judging.normalisation import NormalisedReply
from tools.judge import training
from tools.judge.__main__ import main
from tools.judge.synthetic import synthetic_replies
from tools.judge.training import PROMPTS, save_judge, train


@pytest.fixture(scope="module", autouse=True)
def few_synthetic_replies() -> Iterator[None]:
    """A judge for tests needs fewer synthetic replies than the shipped one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "SYNTHETIC", 40)
        yield


@pytest.fixture(scope="module")
def labelled() -> LabelledFile:
    """Two hundred labelled replies, harmless ones."""
    rows = [replace(row, prompt=f"question {i}", model="m") for i, row in enumerate(synthetic_replies(7, 12))]
    return LabelledFile("labelled.csv", "ab" * 32, tuple(rows))


@pytest.fixture(scope="module")
def own(labelled: LabelledFile) -> TrainedJudge:
    """A judge trained on them."""
    return train([labelled], seed=3, about={"licence": "none"})


def test_the_same_data_give_the_same_bytes(labelled: LabelledFile, own: TrainedJudge, tmp_path: Path) -> None:
    again = train([labelled], seed=3, about={"licence": "none"})
    assert again.fingerprint == own.fingerprint and again.card == own.card
    for name, judge in (("a", own), ("b", again)):
        save_judge(judge, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    held = load_trained_judge(tmp_path / "a")
    assert held.fingerprint == own.fingerprint
    assert held.card["sources"] == [{"name": "labelled.csv", "digest": "ab" * 32, "rows": len(labelled.rows)}]


def test_another_seed_gives_another_judge(labelled: LabelledFile, own: TrainedJudge) -> None:
    assert train([labelled], seed=4).fingerprint != own.fingerprint


def test_what_few_prompts_share_is_not_kept(labelled: LabelledFile) -> None:
    rows = labelled.rows
    for prompts, kept in ((PROMPTS - 1, False), (PROMPTS, True)):
        marked = [
            replace(row, reply="marzipan " + row.reply) if place < prompts else row
            for place, row in enumerate(rows)
        ]
        judge = train([replace(labelled, rows=tuple(marked))], seed=3)
        known = set(judge.columns.tolist())
        held = [
            set(feature_table([Exchange("", NormalisedReply("", (text,)))])[:, :COLUMNS].indices.tolist())
            <= known
            for text in ("marzipan",)
        ]
        assert held == [kept]


def test_too_little_to_learn_from_is_refused(labelled: LabelledFile) -> None:
    with pytest.raises(JudgeError, match="at least 20 refusals and as many answers, got 5 and 0"):
        train([replace(labelled, rows=labelled.rows[:5])])


def test_the_command_ends_with_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as stop:
        main([tmp_path / "none.csv"], to=tmp_path / "judge.safetensors")
    assert stop.value.exit_code == 2
    error = capsys.readouterr().err
    assert error.startswith("tools.judge: ") and "No such file" in error and error.count("\n") == 1
