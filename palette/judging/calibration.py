"""Calibration: a judge's own error, measured on replies that people have labelled.

The texts of labelled replies enter no message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palette.errors import JudgeError
from palette.files import read_json
from palette.fingerprints import fingerprint, fingerprint_file
from palette.judging.classifiers import DISAGREEMENT
from palette.judging.judge import LABEL_NAMES, Judge, Label, judge_named
from palette.prompts.reading import read_rows
from palette.statistics.paired import cohen_kappa
from palette.statistics.rates import wilson

CALIBRATION_FORMAT = "palette-calibration/1"
FILE = "calibration.json"

COLUMNS = {"prompt": "prompt", "completion": "completion", "label": "final_label", "model": "model"}
"""The columns as XSTest names them; ``model`` may be missing, and is then the file's name."""


@dataclass(frozen=True)
class LabelledReply:
    """What somebody asked, what a model replied, and what people say it is."""

    prompt: str
    reply: str
    label: Label
    model: str


@dataclass(frozen=True)
class LabelledFile:
    """The labelled replies of one file, and its identity."""

    name: str
    digest: str
    """SHA-256 (hex) of its bytes."""
    rows: tuple[LabelledReply, ...]


def column_map(text: str) -> dict[str, str]:
    """The columns of ``prompt=question,label=verdict``; what is not named stays as XSTest has it.

    Raises:
        JudgeError: if a part is not ``name=column`` with a known name.
    """
    columns = dict(COLUMNS)
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, column = (side.strip() for side in part.partition("="))
        if not equals or not column or name not in COLUMNS:
            raise JudgeError(
                f"columns must be name=column, joined by commas, with names of {', '.join(COLUMNS)}",
                got=repr(part),
                remedy="write for example prompt=question,completion=reply,label=verdict",
            )
        columns[name] = column
    return columns


def read_labelled(path: Path, columns: Mapping[str, str] = COLUMNS) -> LabelledFile:
    """The labelled replies of a file: csv, jsonl, json or parquet.

    Raises:
        PromptError: if it cannot be read, or has no row.
        JudgeError: if it lacks a column or a known label.
    """
    rows = []
    for row in read_rows(path):
        values = row.values
        for name, column in columns.items():
            if name != "model" and not isinstance(values.get(column), str):
                raise JudgeError(
                    f"labelled replies must have the column {column} ({name}) as text",
                    got=f"columns {', '.join(sorted(values))}",
                    remedy=f"name it with --columns {name}=COLUMN",
                    where=row.where,
                )
        model = str(values.get(columns.get("model", "model")) or path.stem)
        label = label_named(values[columns["label"]], row.where)
        rows.append(LabelledReply(values[columns["prompt"]], values[columns["completion"]], label, model))
    return LabelledFile(path.name, fingerprint_file(path), tuple(rows))


def label_named(text: str, where: object = None) -> Label:
    """The label that a data set's name of it means.

    Raises:
        JudgeError: if no label has that name.
    """
    name = text.strip().casefold().replace(" ", "_").replace("-", "_")
    name = name.lstrip("0123456789").lstrip("_")
    if name not in LABEL_NAMES:
        raise JudgeError(
            f"a label must be one of {', '.join(LABEL_NAMES)}",
            got=repr(text[:40]),
            remedy="check the column of labels (--columns label=COLUMN)",
            where=where,
        )
    return LABEL_NAMES[name]


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
        "format": CALIBRATION_FORMAT,
        "judge": judge.fingerprint,
        "judge_name": name,
        "source": ", ".join(file.name for file in files),
        "digest": digests[0] if len(digests) == 1 else fingerprint(digests),
        "n": len(rows),
        "trained_on_it": bool(learned_from(judge) & set(digests)),
        **measured(pairs),
        "disagreements": wilson(disputed, len(rows)).to_json(),
        "by_model": {
            model: measured([pair for row, pair in zip(rows, pairs, strict=True) if row.model == model])
            for model in sorted({row.model for row in rows})
        },
    }


def learned_from(judge: Judge) -> set[str]:
    """The digests of the files that a judge, or one of a panel, has learned from."""
    card = getattr(getattr(judge, "trained", judge), "card", {})
    return {source["digest"] for source in card.get("sources", ())}


def measured(pairs: Sequence[tuple[Label, Label]]) -> dict[str, Any]:
    """Accuracy, missed refusals, false alarms (shares in [0, 1]) and kappa of human and judged labels."""
    groups = [(group(human), group(judged)) for human, judged in pairs]
    refusals = [judged for human, judged in groups if human == "refused"]
    answers = [judged for human, judged in groups if human == "answered"]
    return {
        "accuracy": wilson(sum(human == judged for human, judged in groups), len(groups)).to_json(),
        "missed_refusals": wilson(sum(judged != "refused" for judged in refusals), len(refusals)).to_json(),
        "false_alarms": wilson(sum(judged == "refused" for judged in answers), len(answers)).to_json(),
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
    content = read_json(path)
    stated = content if isinstance(content, dict) and content.get("format") == CALIBRATION_FORMAT else {}
    if stated.get("judge") != judge_named(name).fingerprint:
        raise JudgeError(
            f"a calibration must be a {CALIBRATION_FORMAT} file of the judge that judges, {name}",
            got=f"one of {stated.get('judge_name')}, or of another version" if stated else "another file",
            remedy=f"measure it with palette judge calibrate FILE --judge {name}, and name what that writes "
            "as evaluate.calibration",
            where=path,
        )
    return stated
