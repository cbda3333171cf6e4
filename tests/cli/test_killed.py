"""An evaluation that is killed at any moment goes on, and ends in the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from palette import organism
from palette.adapters.writing import write_adapter
from palette.backbones import load_backbone
from tests.fixtures.noise import noise

SMALL = (
    "--set", "evaluate.prompts=6", "--set", "evaluate.wrapped_prompts=1", "--set", "limit=8",
    "--set", "evaluate.divergence_prompts=2", "--set", "evaluate.reply_tokens=24", "--json",
)  # fmt: skip
NAMES = ("report.json", "report.html", "evaluate/outcomes.json")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    """An adapter that changes replies and is no good."""
    backbone = load_backbone(organism.weights("shared"), "organism/shared")
    folder = tmp_path_factory.mktemp("adapter")
    write_adapter(folder, noise(backbone, "layers.1.mlp.", scale=0.05))
    return folder


class Evaluation:
    """The command as a user types it, with a cache of its own."""

    def __init__(self, place: Path, adapter: Path) -> None:
        self.folder, self.cache = place / "run", place / "cache"
        self._call = [
            sys.executable, "-m", "palette", "evaluate", "--model", "organism/shared",
            "--prompts", "organism", "--authorise", "medical", "--adapter", str(adapter),
            "-o", str(self.folder), *SMALL,
        ]  # fmt: skip
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", "PALETTE_CACHE": str(self.cache)}

    def start(self) -> subprocess.Popen[bytes]:
        """A process that has begun to generate, or has ended; just started, where replies are kept."""
        fresh = self.size() == 0
        process = subprocess.Popen(self._call, env=self._environment, stdout=subprocess.DEVNULL)
        while fresh and self.size() == 0 and process.poll() is None:
            time.sleep(0.005)
        return process

    def size(self) -> int:
        """Bytes that are kept."""
        return sum(path.stat().st_size for path in self.cache.rglob("*.jsonl"))

    def finish(self) -> dict[str, bytes]:
        """Runs to the end; what was written."""
        done = subprocess.run(self._call, env=self._environment, capture_output=True, check=False)
        assert done.returncode == 3, done.stderr
        return {name: (self.folder / name).read_bytes() for name in NAMES}

    def keys(self) -> list[str]:
        """The keys of all rows that are kept, sorted."""
        lines = [line for path in self.cache.rglob("*.jsonl") for line in path.read_bytes().splitlines()]
        return sorted(key for line in lines for key in _key(line))


def _key(line: bytes) -> list[str]:
    try:
        return [json.loads(line)[0]]
    except ValueError:
        return []


@pytest.fixture(scope="module")
def whole(tmp_path_factory, adapter) -> tuple[dict[str, bytes], list[str], float, float]:
    """What an uninterrupted evaluation writes and keeps; seconds to the first reply, and from there on."""
    evaluation = Evaluation(tmp_path_factory.mktemp("whole"), adapter)
    started = time.monotonic()
    process = evaluation.start()
    begun = time.monotonic()
    process.wait()
    written = {name: (evaluation.folder / name).read_bytes() for name in NAMES}
    return written, evaluation.keys(), begun - started, time.monotonic() - begun


def killed(evaluation: Evaluation, after: float) -> None:
    """Starts the evaluation and kills it so many seconds after its first reply."""
    process = evaluation.start()
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_killed_evaluation_ends_in_the_same_bytes(whole, adapter, tmp_path):
    expected, keys, start, seconds = whole
    evaluation = Evaluation(tmp_path, adapter)
    moments = random.Random(0)
    killed(evaluation, moments.uniform(0, 0.2 * seconds))
    assert evaluation.keys() != keys, "the evaluation must be killed before its last reply"
    killed(evaluation, start + moments.uniform(0, seconds))
    assert evaluation.finish() == expected
    assert evaluation.keys() == keys, "no row is lost, and none is repeated"


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(20))
def test_it_does_so_at_any_moment(whole, adapter, tmp_path, moment):
    expected, keys, _, seconds = whole
    evaluation = Evaluation(tmp_path, adapter)
    killed(evaluation, random.Random(moment).uniform(0, seconds))
    assert evaluation.finish() == expected
    assert evaluation.keys() == keys
