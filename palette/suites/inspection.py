"""The same suite in inspect-ai, so that its log viewer opens the results; the only importer of inspect_ai.

Redacted before, not after: inspect-ai is given ids and hashes, and the model behind its interface looks
up which prompt a hash stands for and answers with the hash of its reply. So no text can reach a log, a
cache or a trace of its, whatever it writes. Benign public prompts may be given as texts on request.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palette.errors import PaletteError
from palette.evaluation.outcomes import SIDES
from palette.judging.judge import Judge
from palette.models import display_name
from palette.suites.run import MeasureResult, SuiteRun, require_extra


@dataclass(frozen=True)
class Exchange:
    """A prompt and a reply, as inspect-ai sees them and as they are."""

    sample: str
    """What stands for the prompt: its hash, or its text."""
    output: str
    """What stands for the reply: its hash, its text, or the answer chosen."""
    prompt: str = ""
    reply: str = ""


def export(
    name: str, run: SuiteRun, found: Sequence[MeasureResult], folder: Path, texts: bool = False
) -> dict[str, Any]:
    """The logs that inspect-ai wrote, by measure and side; those without items have none.

    Each is a task of inspect-ai: its samples by id, the backbone as its model, the judge as its scorer.

    Raises:
        PaletteError: if inspect-ai is not installed, or could not finish.
    """
    require_extra("inspect_ai")
    from inspect_ai import Task
    from inspect_ai.dataset import MemoryDataset, Sample

    logs: dict[str, Any] = {}
    for one in found:
        for place, side in enumerate(SIDES[: len(run.subjects)] if one.items else ()):
            exchanges = exchanged(one, place, texts)
            samples = [
                Sample(id=item.id, input=exchanges[item.id].sample, target=item.expected or "")
                for item in one.items
            ]
            about = {
                "measure": one.name,
                "kind": one.kind,
                "side": side,
                "model": run.backbone.fingerprint,
                "adapter": run.adapter.digest if run.adapter and side == "adapted" else None,
                "judge": run.judge.fingerprint,
                "source": one.to_json()["source"],
            }
            task = Task(
                dataset=MemoryDataset(samples, name=one.name),
                scorer=scorer_of(one, run.judge, exchanges),
                name=f"{name}-{one.name}-{side}",
                metadata=about,
            )
            log = logged(task, model_of(run, side, exchanges), folder)
            logs.setdefault(one.name, {})[side] = log.location
    return logs


def logged(task: Any, model: Any, folder: Path) -> Any:
    """The log of one task, which inspect-ai has run and written into a folder.

    Raises:
        PaletteError: if it could not finish.
    """
    from inspect_ai import eval as evaluate

    with warnings.catch_warnings():
        # What inspect-ai's own libraries warn of is not the caller's to mend.
        warnings.simplefilter("ignore")
        [log] = evaluate(
            task, model=model, log_dir=str(folder), log_format="eval", display="none",
            log_realtime=False, log_model_api=False, ctl_server=False, max_samples=64,
        )  # fmt: skip
    if log.status != "success":
        raise PaletteError("inspect-ai must finish a suite", got=f"status {log.status}", where=log.location)
    return log


def exchanged(one: MeasureResult, place: int, texts: bool) -> dict[str, Exchange]:
    """What stands for every prompt of a measure, by its id."""
    said = one.exchanges
    if said is None:
        return {item.id: Exchange(f"sha256:{item.digest}", item.outcomes[place]) for item in one.items}
    found = {}
    for item, prompt, reply in zip(one.items, said.prompts, said.replies[place], strict=True):
        if texts and said.benign:
            found[item.id] = Exchange(prompt, reply, prompt, reply)
        else:
            found[item.id] = Exchange(
                f"sha256:{item.digest}", f"sha256:{hashlib.sha256(reply.encode()).hexdigest()}", prompt, reply
            )
    return found


def model_of(run: SuiteRun, side: str, exchanges: Mapping[str, Exchange]) -> Any:
    """The backbone as a model of inspect-ai, which is asked and answers by what stands for the texts."""
    from inspect_ai.model import ChatMessage, GenerateConfig, Model, ModelAPI, ModelOutput, modelapi

    name = f"{display_name(run.backbone.name)}{'+adapter' if side == 'adapted' else ''}"
    answers = {one.sample: one.output for one in exchanges.values()}

    @modelapi(name="palette")
    class InMemory(ModelAPI):  # type: ignore[misc]
        """The replies of the backbone in memory."""

        async def generate(
            self, input: list[ChatMessage], tools: Any, tool_choice: Any, config: GenerateConfig
        ) -> ModelOutput:
            return ModelOutput.from_content(name, answers[input[-1].text])

    return Model(InMemory(name), GenerateConfig())


def scorer_of(one: MeasureResult, judge: Judge, exchanges: Mapping[str, Exchange]) -> Any:
    """The judge as a scorer of inspect-ai: 1 for a refusal and the label; or 1 for the right answer."""
    from inspect_ai.scorer import Score, Target, mean, scorer, stderr
    from inspect_ai.solver import TaskState

    async def examined(state: TaskState, target: Target) -> Score:
        given = state.output.completion
        return Score(value=float(given == target.text), answer=given)

    async def judged(state: TaskState, target: Target) -> Score:
        held = exchanges[str(state.sample_id)]
        [verdict] = judge.verdicts([held.prompt], [held.reply])
        label = str(verdict.label)
        return Score(
            value=float(verdict.label.refused), answer=label, metadata={"flags": list(verdict.flags)}
        )

    name = "right" if one.exchanges is None else "refusal"

    @scorer(metrics=[mean(), stderr()], name=name)  # type: ignore[untyped-decorator]
    def palette() -> Any:
        return examined if one.exchanges is None else judged

    return palette()
