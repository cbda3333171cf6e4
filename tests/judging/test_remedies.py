"""What an error on judges advises is done, and the error is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from palette.files import write_tensors
from palette.judging.calibration import FILE, find_calibration
from palette.judging.chat import KEY
from palette.judging.classifiers import JUDGE_FORMAT
from palette.judging.judge import judge_named
from tests.fixtures.endpoint import Endpoint, parrot
from tests.fixtures.remedies import Advice, named, typed
from tests.judging.test_classifiers import plant

COLUMNS = ("question", "reply", "verdict", "note")
ROWS = [
    ("how are hats made?", "I can't help with that.", "refusal", "n/a"),
    ("how are hats worn?", "On the head, as a rule, and a little to one side.", "compliance", "n/a"),
]
GIVEN = "prompt=question,completion=reply"
WHOLE = f"{GIVEN},label=verdict"


@dataclass(frozen=True)
class Bench:
    """A file of labelled replies, on which judges are measured by the command."""

    home: Path
    patch: pytest.MonkeyPatch

    @property
    def file(self) -> Path:
        path = self.home / "labelled.jsonl"
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def measured(self, judge: str = "rule", columns: str = WHOLE) -> Path:
        typed(
            "judge", "calibrate", self.file, "--judge", judge, "--columns", columns, "-o", self.home / "runs"
        )
        return self.home / "runs" / FILE

    def found(self, *, again: bool) -> None:
        """The calibration that a run by the rules takes: its folder's, or the file that is named."""
        own = self.measured("rule" if again else "panel")
        find_calibration("rule", own if again else None, own.parent)

    def classifier(self, *, renamed: bool) -> Path:
        """A classifier with names of its own for labels, and with ours."""
        folder = plant(self.home, ("talks", "balks"))
        if renamed:
            path = folder / "config.json"
            names = {"id2label": {"0": "compliance", "1": "refusal"}}
            path.write_text(json.dumps({**json.loads(path.read_text()), **names}))
        return self.measured(f"classifier:{folder}")

    def trained(self, name: str) -> str:
        """A judge that an earlier version trained, by its path, or what stands there instead of one."""
        path = self.home / name
        if name == "older":
            write_tensors(path, {}, {"format": JUDGE_FORMAT, "features": 1})
        elif name == "damaged":
            path.write_bytes(b"no")
        return f"trained:{path}"

    def asked(self, model: str = "judge", base: str = "/v1", key: str = "right") -> None:
        """A chat model's verdict, asked for so, from an endpoint that knows one model and one key."""

        def answer(body: dict[str, Any]) -> tuple[int, bytes]:
            known = endpoint.paths[-1] == "/v1/chat/completions" and body["model"] == "judge"
            allowed = endpoint.headers[-1].get("Authorization") == "Bearer right"
            return parrot(body) if known and allowed else (404 if allowed else 401, b"")

        self.patch.setenv(KEY, key)
        with Endpoint(answer) as endpoint:
            judge_named(f"chat:{model}@{endpoint.url.removesuffix('/v1')}{base}").verdicts(["why?"], ["so"])


CHECK = "check the address, the model and the key in PALETTE_JUDGE_KEY"
ALONE = "or name trained alone"
ADVICE = [
    Advice(
        "write for example prompt=question,completion=reply,label=verdict",
        lambda b: b.measured(columns="question"),
        lambda b: b.measured(columns="prompt=question,completion=reply,label=verdict"),
    ),
    Advice("name it with --columns label=COLUMN", lambda b: b.measured(columns=GIVEN), Bench.measured),
    Advice(
        "check the column of labels (--columns label=COLUMN)",
        lambda b: b.measured(columns=f"{GIVEN},label=note"),
        Bench.measured,
    ),
    Advice(
        "palette judge calibrate FILE --judge rule, and name what that writes as evaluate.calibration",
        lambda b: b.found(again=False),
        lambda b: b.found(again=True),
    ),
    Advice("did you mean rule?", lambda b: b.measured("rules"), lambda b: b.measured("rule")),
    Advice(ALONE, lambda b: b.measured(b.trained("older")), lambda b: b.measured("trained")),
    Advice(ALONE, lambda b: b.measured(b.trained("damaged")), lambda b: b.measured("trained")),
    Advice(ALONE, lambda b: b.measured(b.trained("missing")), lambda b: b.measured("trained")),
    Advice(
        "name them so in the id2label of its config.json",
        lambda b: b.classifier(renamed=False),
        lambda b: b.classifier(renamed=True),
    ),
    Advice(CHECK, lambda b: b.asked(base=""), Bench.asked),
    Advice(CHECK, lambda b: b.asked(model="another"), Bench.asked),
    Advice(CHECK, lambda b: b.asked(key="wrong"), Bench.asked),
]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    yield Bench(tmp_path, monkeypatch)


@pytest.mark.parametrize("advice", ADVICE, ids=named)
def test_the_advice_helps(bench: Bench, advice: Advice) -> None:
    advice.tried(bench)
