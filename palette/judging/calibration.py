"""Calibration: a judge's own error, measured on replies that people have labelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from palette.errors import JudgeError
from palette.files import read_json
from palette.fingerprints import fingerprint
from palette.judging.judge import Judge
from palette.judging.labelled import LabelledFile, LabelledReply
from palette.judging.labels import Label
from palette.judging.panel import DISAGREEMENT
from palette.judging.registry import judge_named
from palette.statistics import cohen_kappa, wilson

FORMAT = "palette-calibration/1"
FILE = "calibration.json"

Pair = tuple[Label, Label]
"""What people say, and what the judge says."""


def calibrate(judge: Judge, name: str, files: Sequence[LabelledFile]) -> dict[str, Any]:
    """The calibration of a judge as JSON: shares in [0, 1] with Wilson intervals, and Cohen's kappa.

    ``missed_refusals`` is the share of people's refusals, partial ones and deflections among them, that
    the judge takes for something else; ``false_alarms`` the share of people's answers that it takes for
    refusals. ``trained_on_it`` says that the judge has learned from one of the files, so that its error on
    other models' replies is larger.
    """
    rows = [row for file in files for row in file.rows]
    verdicts = judge.verdicts([row.prompt for row in rows], [row.reply for row in rows])
    pairs = [(row.label, verdict.label) for row, verdict in zip(rows, verdicts, strict=True)]
    disputed = sum(DISAGREEMENT in verdict.flags for verdict in verdicts)
    digests = [file.digest for file in files]
    return {
        "format": FORMAT,
        "judge": judge.fingerprint,
        "judge_name": name,
        "source": ", ".join(file.name for file in files),
        "digest": digests[0] if len(digests) == 1 else fingerprint(digests),
        "n": len(rows),
        "trained_on_it": bool(learned_from(judge) & set(digests)),
        **measured(pairs),
        "disagreements": wilson(disputed, len(rows)).to_json(),
        "by_model": {model: measured(_of(model, rows, pairs)) for model in sorted({r.model for r in rows})},
    }


def learned_from(judge: Judge) -> set[str]:
    """The digests of the files that a judge, or one of a panel, has learned from."""
    card = getattr(getattr(judge, "trained", judge), "card", {})
    return {source["digest"] for source in card.get("sources", ())}


def measured(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Accuracy, missed refusals, false alarms (shares in [0, 1]) and kappa of labels in pairs."""
    groups = [(group(human), group(judged)) for human, judged in pairs]
    refusals = [judged for human, judged in groups if human == "refused"]
    answers = [judged for human, judged in groups if human == "answered"]
    return {
        "accuracy": wilson(sum(human == judged for human, judged in groups), len(groups)).to_json(),
        "missed_refusals": wilson(sum(each != "refused" for each in refusals), len(refusals)).to_json(),
        "false_alarms": wilson(sum(each == "refused" for each in answers), len(answers)).to_json(),
        "kappa": kappa(groups),
    }


def group(label: Label) -> str:
    """What a label counts as: refused, answered or broken."""
    return "refused" if label.refused else "broken" if label.broken else "answered"


def kappa(pairs: Sequence[tuple[str, str]]) -> float:
    """Cohen's kappa: the agreement beyond chance.

    Where one of the two always says the same, chance explains all of it, and kappa is 0.
    """
    kinds = sorted({kind for pair in pairs for kind in pair})
    if min(len({pair[side] for pair in pairs}) for side in (0, 1)) < 2:
        return 0.0
    counts = Counter(pairs)
    return float(cohen_kappa([[counts[human, judged] for judged in kinds] for human in kinds]))


def find_calibration(name: str, given: Path | None, folder: Path) -> dict[str, Any] | None:
    """The calibration of the judge of a name: of the file given, else of the run's folder, else None.

    Learned prefixes are a backbone's own, and no calibration on another model's replies has them, so
    the judge without prefixes must be the one that was measured.

    Raises:
        OutputError: if the file given is missing or is not JSON.
        JudgeError: if it is no calibration, or that of another judge.
    """
    path = given or folder / FILE
    if given is None and not path.is_file():
        return None
    held = read_json(path)
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        raise JudgeError(
            f"a calibration must be a {FORMAT} file",
            got="another file",
            remedy="write one with palette judge calibrate",
            where=path,
        )
    if held.get("judge") != judge_named(name).fingerprint:
        raise JudgeError(
            f"a calibration must be of the judge that judges, {name}",
            got=f"one of {held.get('judge_name')}, or of another version",
            remedy=f"measure it again with palette judge calibrate --judge {name}",
            where=path,
        )
    return held


def _of(model: str, rows: Iterable[LabelledReply], pairs: Iterable[Pair]) -> list[Pair]:
    return [pair for row, pair in zip(rows, pairs, strict=True) if row.model == model]
