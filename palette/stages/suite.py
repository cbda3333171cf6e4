"""A model and an adapter measured by a suite: what the command ``suite`` calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from palette.adapters.files import read_adapter
from palette.adapters.lora import Adapter
from palette.authorisation import FLOOR, Authorisation, authorise
from palette.backbones import load_backbone
from palette.errors import AdapterError
from palette.evaluation.baseline import baseline_replies
from palette.files import claim
from palette.judging.registry import judge_named
from palette.progress import Progress, silent
from palette.prompts import load_prompts
from palette.run import Run, RunSettings, locate_model
from palette.suites.bench import Bench
from palette.suites.report import run_suite
from palette.suites.running import check
from palette.suites.schema import Suite, load_suite


@dataclass(frozen=True)
class Places:
    """Where a suite's files lie, and where its results go."""

    data: Path | None = None
    """The folder beneath which the suite's files lie (default: beside the suite)."""
    output: Path | None = None
    """The output folder (default: runs/<suite name>)."""
    inspect_log: Path | None = None
    """The folder of inspect-ai's logs, if the suite is to be run there too."""
    texts: bool = False
    """Whether those logs hold the texts of benign prompts and their replies."""


def suite(
    path: Path | str,
    model: str,
    adapter: Path | None = None,
    places: Places = Places(),
    overrides: Iterable[str] = (),
    progress: Progress = silent,
) -> tuple[dict[str, Any], Path]:
    """The result of a suite on a model, with an adapter on as well if one is given, and its folder.

    Raises:
        PaletteError: if the suite, the data, the model, the adapter or the folder break a law, or an
            extra is needed that is not installed.
    """
    path = Path(path)
    whole = load_suite(path, overrides)
    mounted = None if adapter is None else read_adapter(adapter)
    if places.inspect_log is not None:
        from palette.suites.inspection import required

        required()
    opened = authorised(whole, mounted)
    torch.set_num_threads(whole.threads)
    located = locate_model(model)
    backbone = load_backbone(located, model, dtype=whole.dtype, device=whole.device, thinking=whole.thinking)
    if mounted is not None and mounted.backbone.fingerprint not in (None, backbone.fingerprint):
        raise AdapterError(
            "an adapter must be mounted on the backbone that it was made for",
            got=f"one for {mounted.backbone.name} on {model}",
            remedy="measure it on its own backbone",
        )
    folder = places.output or Path("runs") / whole.name
    data = places.data or path.parent
    bench = Bench(backbone, mounted, judge_named(whole.judge), progress, opened, data, folder, located)
    check(whole, bench)
    claim(folder, {"suite": whole.name})
    bench = listened(whole, bench)
    result, found = run_suite(whole, bench)
    if places.inspect_log is not None:
        from palette.suites.inspection import export

        result = {**result, "inspect": export(whole.name, bench, found, places.inspect_log, places.texts)}
    return result, folder


def listened(whole: Suite, bench: Bench) -> Bench:
    """The bench with a judge that knows the backbone's own refusal prefixes, where it may listen.

    Raises:
        PromptError: if prefixes are to be learned from prompts that are not there.
    """
    if whole.baseline_replies is None:
        return bench
    prompts = load_prompts(bench.place(whole.baseline_replies))
    every = tuple(domain for domain in prompts.domains if not FLOOR.holds(domain, None, None))
    run = Run.of(RunSettings(), bench.folder, bench.backbone, prompts, Authorisation(every)).sharing(
        progress=bench.progress
    )
    baseline = baseline_replies(run)
    judge = judge_named(whole.judge, baseline.judge.prefixes)
    return replace(bench, judge=judge, floor_tokens=baseline.floor_tokens)


def authorised(whole: Suite, adapter: Adapter | None) -> Authorisation:
    """What the suite takes for opened: its own ``authorise``, or else what the adapter opens.

    Raises:
        AuthorisationError: if that is on the floor.
    """
    domains: Sequence[str] = whole.authorise or (adapter.domains if adapter else ())
    if not domains:
        return Authorisation((), FLOOR, dict(whole.reasons))
    return authorise(domains, [*domains, *whole.reasons], reasons=whole.reasons)
