"""lm-eval on a backbone in memory, as it is at the moment; the only importer of lm_eval."""

from __future__ import annotations

import io
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch

from palette.backbones import Backbone


def task_manager(folder: Path | None = None, defaults: bool = False) -> Any:
    """Who finds tasks by name: in a folder of YAML files, and, with ``defaults``, among lm-eval's own."""
    from lm_eval.tasks import TaskManager

    with undisturbed():
        return TaskManager(include_path=folder and str(folder), include_defaults=defaults)


def sampled(backbone: Backbone, model: Mapping[str, Any], **asked: Any) -> Mapping[str, list[dict[str, Any]]]:
    """lm-eval's samples by task; ``model`` and ``asked`` are options of its model and of its asking."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    with undisturbed():
        lm = HFLM(pretrained=backbone.model, tokenizer=backbone.tokenizer, **model)
        found: Mapping[str, list[dict[str, Any]]] = simple_evaluate(model=lm, bootstrap_iters=0, **asked)[
            "samples"
        ]
    return found


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keeps the global generators and the log levels as they are, and lm-eval's bars off the screen."""
    python, drawn = random.getstate(), np.random.get_state()
    loggers = [logging.getLogger(name) for name in ("lm_eval", "lm_eval.evaluator")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        bars = io.StringIO()
        with torch.random.fork_rng(devices=[]), redirect_stderr(bars), redirect_stdout(bars):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(drawn)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
