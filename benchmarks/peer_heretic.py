"""Drives the peer, heretic 1.4.0, in its own environment, from the outside; our code, none of theirs.

Run as ``python peer_heretic.py TRIALS OUT`` in a folder with the peer's ``config.toml``. Writes, for
every trial, the CPU seconds since the one before it, what the peer measured, and its adapter.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from heretic import main as peer  # type: ignore[import-not-found]
from heretic.evaluator import Evaluator  # type: ignore[import-not-found]


def watch(trials: int, out: Path) -> None:
    """Lets the peer run ``trials`` trials and notes each; then ends the process."""
    get_score, count_refusals = Evaluator.get_score, Evaluator.count_refusals
    notes: list[dict[str, Any]] = []
    clock = {"since": 0.0, "generation": 0.0}

    def counted(self: Any) -> int:
        started = time.process_time()
        found: int = count_refusals(self)
        clock["generation"] = time.process_time() - started
        # The end of the base evaluation is the start of the first trial.
        clock["since"] = clock["since"] or time.process_time()
        return found

    def noted(self: Any) -> Any:
        result = get_score(self)
        seconds = time.process_time() - clock["since"]
        number = len(notes)
        notes.append(
            {
                "cpu_seconds": seconds,
                "generation_cpu_seconds": clock["generation"],
                "kl": result[1],
                "refusals": result[2],
                "prompts": len(self.bad_prompts),
            }
        )
        self.model.model.save_pretrained(out / f"trial-{number}")
        (out / "trials.json").write_text(json.dumps(notes))
        if len(notes) == trials:
            os._exit(0)
        clock["since"] = time.process_time()
        return result

    Evaluator.get_score, Evaluator.count_refusals = noted, counted
    torch.set_num_threads(1)
    sys.argv = ["heretic"]
    peer.main()


if __name__ == "__main__":
    watch(int(sys.argv[1]), Path(sys.argv[2]))
