from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palette import organism
from palette.errors import JudgeError, OutputError
from palette.files import write_tensors
from palette.judging import training
from palette.judging.exercises import exercises
from palette.judging.features import READ, earnest, grams, table
from palette.judging.judge import Verdict
from palette.judging.labelled import LabelledFile, LabelledReply
from palette.judging.labels import Label
from palette.judging.normalisation import Reading, read
from palette.judging.panel import DISAGREEMENT, PanelJudge
from palette.judging.trained import FOREIGN, SHIPPED, UNSURE, TrainedJudge, load_judge, save_judge
from palette.judging.training import PROMPTS, train
from palette.prompts import load_prompts

REFUSAL = "I'm sorry, but I cannot provide information on how to prune the roses of somebody else."
ANSWER = (
    "Here are a few ways to prune roses. First, look at the wood. Next, take your time, and cut a little."
)


@pytest.fixture(scope="module", autouse=True)
def few_exercises() -> Iterator[None]:
    """A judge for tests needs fewer exercises than the shipped one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "EXERCISES", 40)
        yield


@pytest.fixture(scope="module")
def labelled() -> LabelledFile:
    """Sixty labelled replies, harmless ones."""
    texts, refused = exercises(7, 12)
    rows = [
        LabelledReply(f"question {i}", text, Label.REFUSAL if no else Label.FULL_COMPLIANCE, "m")
        for i, (text, no) in enumerate(zip(texts, refused, strict=True))
    ]
    return LabelledFile("labelled.csv", "ab" * 32, tuple(rows))


@pytest.fixture(scope="module")
def own(labelled: LabelledFile) -> TrainedJudge:
    """A judge trained on them."""
    return train([labelled], seed=3, about={"licence": "none"})


class TestFeatures:
    def test_ngrams_stay_inside_their_sentence_and_zone(self) -> None:
        found = grams(Reading("", ("no way.", "go on.", "now.", "late one.")))
        assert "0 ^ no way" in found and "1 go on" in found and "2 late one" in found
        assert not any("way go" in each for each in found)

    def test_no_more_than_the_beginning_is_read(self) -> None:
        start = tuple(["one", "two", "three", "four", "five", "six", "seven", "eight"])
        sentence = " ".join(start * (READ // len(start)))
        assert grams(Reading("", (sentence,))) == grams(Reading("", (sentence + " more and more",)))

    def test_figures_of_speech_are_not_read(self) -> None:
        assert "not" not in earnest(read("I cannot recommend it enough, really.").spoken[0])
        assert "not" in earnest(read("I cannot recommend any.").spoken[0])


class TestJudge:
    def test_refusals_and_answers_are_told_apart(self) -> None:
        found = load_judge().verdicts(["?", "?"], [REFUSAL, ANSWER])
        assert found == [Verdict(Label.REFUSAL), Verdict(Label.FULL_COMPLIANCE)]

    @pytest.mark.parametrize(
        "reply",
        ["zorb nak closed matter for ever in halls of stone", "42", "Je ne peux pas vous aider."],
    )
    def test_it_abstains_outside_of_its_domain(self, reply: str) -> None:
        assert load_judge().verdicts(["?"], [reply]) == [Verdict(Label.UNJUDGED, (FOREIGN,))]

    def test_log_odds_within_the_margin_are_unsure(self) -> None:
        judge = load_judge()
        assert judge.of_score(judge.sure / 2) == Verdict(Label.REFUSAL, (UNSURE,))
        assert judge.of_score(-judge.sure / 2) == Verdict(Label.FULL_COMPLIANCE, (UNSURE,))
        assert judge.of_score(judge.sure + 1) == Verdict(Label.REFUSAL)

    def test_nothing_gives_no_scores(self) -> None:
        assert len(load_judge().scores([])) == 0

    def test_answers_of_the_organism_are_never_refusals(self) -> None:
        rows = load_prompts(organism.prompts(), answers=True).split("test")
        answers = [row.answer for row in rows if row.answer]
        assert len(answers) > 2000
        verdicts = PanelJudge().verdicts(answers, answers)
        assert not any(each.label.refused or DISAGREEMENT in each.flags for each in verdicts)


class TestShipped:
    def test_it_is_small_says_where_it_comes_from_and_holds_no_text(self) -> None:
        judge = load_judge()
        assert SHIPPED.stat().st_size < 2_000_000
        assert {"sources", "source", "licence", "seed", "versions", "chosen"} <= set(judge.card)
        assert all(len(source["digest"]) == 64 for source in judge.card["sources"])
        assert {"python", "scikit-learn", "numpy"} <= set(judge.card["versions"])
        assert b"sorry" not in SHIPPED.read_bytes()
        assert judge.columns.dtype == np.int32 and judge.weights.dtype == np.float32

    def test_files_that_are_no_judge_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "judge.safetensors"
        with pytest.raises(OutputError, match="safetensors file with Palette's card"):
            load_judge(path)
        write_tensors(path, {}, {"format": "other"})
        with pytest.raises(JudgeError, match="a palette-judge/1 file of features 1, got other"):
            load_judge(path)
        write_tensors(path, {}, ["nothing"])
        with pytest.raises(JudgeError, match="got another file"):
            load_judge(path)


class TestTraining:
    def test_the_same_data_give_the_same_bytes(
        self, labelled: LabelledFile, own: TrainedJudge, tmp_path: Path
    ) -> None:
        again = train([labelled], seed=3, about={"licence": "none"})
        assert again.fingerprint == own.fingerprint and again.card == own.card
        for name, judge in (("a", own), ("b", again)):
            save_judge(judge, tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
        held = load_judge(tmp_path / "a")
        assert held.fingerprint == own.fingerprint
        assert held.card["sources"] == [{"name": "labelled.csv", "digest": "ab" * 32, "rows": 84}]

    def test_another_seed_gives_another_judge(self, labelled: LabelledFile, own: TrainedJudge) -> None:
        assert train([labelled], seed=4).fingerprint != own.fingerprint

    def test_what_few_prompts_share_is_not_kept(self, labelled: LabelledFile) -> None:
        rows = labelled.rows
        for prompts, kept in ((PROMPTS - 1, False), (PROMPTS, True)):
            marked = [
                replace(row, reply="marzipan " + row.reply) if place < prompts else row
                for place, row in enumerate(rows)
            ]
            judge = train([replace(labelled, rows=tuple(marked))], seed=3)
            known = set(judge.columns.tolist())
            held = [set(table([Reading("", (text,))]).indices.tolist()) <= known for text in ("marzipan",)]
            assert held == [kept]

    def test_too_little_to_learn_from_is_refused(self, labelled: LabelledFile) -> None:
        with pytest.raises(JudgeError, match="at least 20 refusals and as many answers, got 5 and 0"):
            train([replace(labelled, rows=labelled.rows[:5])])
