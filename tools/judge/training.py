"""Training the trained judge on labelled replies and on synthetic training data."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from palette.errors import JudgeError
from palette.files import write_tensors
from palette.judging.calibration import LabelledFile, LabelledReply
from palette.judging.classifiers import JUDGE_FORMAT, TrainedJudge, exchanged, together
from palette.judging.features import COLUMNS, FEATURES_VERSION, Exchange, feature_table
from palette.judging.rules import RuleJudge
from palette.seeding import shuffler
from tools.judge.synthetic import synthetic_replies

SYNTHETIC = 300
"""Synthetic replies of each kind."""

SYNTHETIC_WEIGHT = 0.5
"""What a synthetic reply counts beside a labelled reply."""

INVERSE_PENALTY = 30.0
"""scikit-learn's C: the weight of the data against the squared length of the weights."""

HABIT = 0.5
"""What n-grams weigh beside deeds: they are a model's habits first, and another model has others."""

PROMPTS = 6
"""Different prompts to which a feature must have been replied: what fewer share is a topic, or
somebody's text, and neither may be in the file."""

FOLDS = 5
"""Parts of the prompts that are left out in turn where all replies are one model's."""

MARGINS = (0.5, 1.0, 1.5, 2.0)
"""Log-odds, in nats, of which one becomes the margin of a sure verdict: 1.6 to 7.4 to one."""

FEWEST = 20
"""Refusals and answers that there must be at least."""


@dataclass(frozen=True)
class TrainingReplies:
    """Replies to learn from: whether each refuses, its prompt's and its model's number, and its weight."""

    exchanges: Sequence[Exchange]
    refused: NDArray[np.bool_]
    models: NDArray[np.int64]
    prompts: NDArray[np.int64]
    weights: NDArray[np.float64]

    def fitted(self, rows: NDArray[np.int64], sure: float = 0.0) -> TrainedJudge:
        """The judge of some of the rows."""
        from scipy.sparse import diags, hstack
        from sklearn.linear_model import LogisticRegression

        table = feature_table([self.exchanges[row] for row in rows.tolist()]).tocoo()
        shared = np.unique(np.stack([table.col, self.prompts[rows][table.row]]), axis=1)
        columns = np.flatnonzero(np.bincount(shared[0], minlength=2 * COLUMNS) >= PROMPTS)
        halves = [
            table.tocsr()[:, half] for half in (columns[columns < COLUMNS], columns[columns >= COLUMNS])
        ]
        lengths = [np.sqrt(np.maximum(half.sum(axis=1), 1)).A1 for half in halves]
        features = hstack([diags(HABIT / lengths[0]) @ halves[0], diags(1 / lengths[1]) @ halves[1]])
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=5000, tol=1e-6)
        model.fit(features, self.refused[rows], sample_weight=self.weights[rows])
        return TrainedJudge(
            columns.astype(np.int32),
            (model.coef_[0] * np.where(columns < COLUMNS, HABIT, 1.0)).astype(np.float32),
            float(model.intercept_[0]),
            sure,
        )


def train(
    files: Sequence[LabelledFile], seed: int = 0, about: Mapping[str, str] | None = None
) -> TrainedJudge:
    """The trained judge of labelled files and synthetic replies, with its card; ``about`` goes into that.

    Partial refusals and deflections count as refusals; babble is left to the rules. The margin is
    chosen by cross-validation over models, or over prompts where all replies are one model's: the one with
    which the larger of the panel's two errors, refusals missed and false alarms, is least.

    Raises:
        JudgeError: if there are too few refusals or answers to learn from.
    """
    rows = [row for file in files for row in file.rows if not row.label.broken]
    refusals = sum(row.label.refused for row in rows)
    if min(refusals, len(rows) - refusals) < FEWEST:
        raise JudgeError(
            f"a judge is trained with at least {FEWEST} refusals and as many answers",
            got=f"{refusals} and {len(rows) - refusals}",
            remedy="give more labelled files",
        )
    data = training_replies(rows, seed)
    sure, errors = margin_of(data, len(rows), seed)
    judge = data.fitted(np.arange(len(data.exchanges)), sure)
    card = {
        "sources": [{"name": f.name, "digest": f.digest, "rows": len(f.rows)} for f in files],
        **(about or {}),
        "seed": seed,
        "replies": {"refusals": refusals, "answers": len(rows) - refusals},
        "exercises": len(data.exchanges) - len(rows),
        "chosen": {"sure": sure, "cross_validated": errors},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("palette-llm", "scikit-learn", "numpy", "scipy")},
    }
    return TrainedJudge(judge.columns, judge.weights, judge.bias, sure, card)


def training_replies(rows: Sequence[LabelledReply], seed: int) -> TrainingReplies:
    """Labelled replies first, then synthetic ones, each of these to a prompt of its own."""
    every = [*rows, *synthetic_replies(seed, SYNTHETIC)]
    prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(row.prompt for row in rows))}
    models = {model: number for number, model in enumerate(dict.fromkeys(row.model for row in every))}
    return TrainingReplies(
        exchanged([row.prompt for row in every], [row.reply for row in every]),
        np.array([row.label.refused for row in every]),
        np.array([models[row.model] for row in every]),
        np.array(
            [prompts[row.prompt] for row in rows] + [len(prompts) + i for i in range(len(every) - len(rows))]
        ),
        np.array([1.0] * len(rows) + [SYNTHETIC_WEIGHT] * (len(every) - len(rows))),
    )


def margin_of(data: TrainingReplies, count: int, seed: int) -> tuple[float, dict[str, Any]]:
    """The margin of a sure verdict, in nats, and the panel's errors with it (shares in [0, 1]).

    The first ``count`` replies are judged, each by one that has not learned from its model, or its prompt.
    """
    scores = held_out_scores(data, count, seed)
    rules = [RuleJudge().judged(each.reply) for each in data.exchanges[:count]]
    refused = data.refused[:count]
    errors = []
    for sure in MARGINS:
        judge = TrainedJudge(np.zeros(0, np.int32), np.zeros(0, np.float32), 0.0, sure)
        verdicts = [together(rule, judge.of_score(score)) for rule, score in zip(rules, scores, strict=True)]
        judged = np.array([verdict.label.refused for verdict in verdicts])
        missed, alarms = float((~judged[refused]).mean()), float(judged[~refused].mean())
        errors.append({"missed_refusals": round(missed, 4), "false_alarms": round(alarms, 4)})
    chosen = min(range(len(MARGINS)), key=lambda place: max(errors[place].values()))
    return MARGINS[chosen], errors[chosen]


def held_out_scores(data: TrainingReplies, count: int, seed: int) -> NDArray[np.float64]:
    """The log-odds, in nats, of the first replies by judges that have not met their model, or prompts."""
    folds = data.models[:count]
    if len(set(folds.tolist())) == 1:
        prompts = sorted(set(data.prompts[:count].tolist()))
        shuffler(seed, "folds").shuffle(prompts)
        fold = {prompt: place % FOLDS for place, prompt in enumerate(prompts)}
        folds = np.array([fold[prompt] for prompt in data.prompts[:count].tolist()])
    scores = np.zeros(count)
    for number in sorted(set(folds.tolist())):
        left_out = np.flatnonzero(folds == number)
        rest = np.concatenate([np.flatnonzero(folds != number), np.arange(count, len(data.exchanges))])
        scores[left_out] = data.fitted(rest).scores([data.exchanges[row] for row in left_out.tolist()])
    return scores


def save_judge(judge: TrainedJudge, path: Path) -> None:
    """Writes a trained judge with its card, atomically; no pickle, the same bytes each time.

    Raises:
        OutputError: if the disk cannot take the file.
    """
    tensors = {
        "columns": torch.from_numpy(judge.columns),
        "weights": torch.from_numpy(judge.weights),
        "bias": torch.tensor([judge.bias], dtype=torch.float64),
        "sure": torch.tensor([judge.sure], dtype=torch.float64),
    }
    write_tensors(path, tensors, {"format": JUDGE_FORMAT, "features": FEATURES_VERSION, **judge.card})
