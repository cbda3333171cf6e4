"""MMLU and GSM8K by lm-eval, with the adapter off and on.

The tasks are YAML files of lm-eval's own kind, written into the output folder, so that its own command
can be run on them and must find the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from palette.errors import PromptError
from palette.evaluation.lm_eval import sampled, task_manager
from palette.evaluation.outcomes import share
from palette.files import write_text
from palette.fingerprints import fingerprint, fingerprint_file
from palette.suites.run import Figures, Item, MeasureResult, Origin, SuiteRun, changed, require_extra
from palette.suites.schema import SUBJECTS, Knowledge, Utility, named

TEMPLATES = Path(__file__).parent / "tasks"
LETTERS = "ABCD"
FILTERS = ("flexible-extract", "strict-match")
"""GSM8K's two ways to find the number in a reply; the pairs are of the first."""


def examine(one: Utility | Knowledge, run: SuiteRun) -> MeasureResult:
    """Shares in [0, 1] of questions answered rightly, in all and a subject, with their intervals.

    Raises:
        PaletteError: if lm-eval is not installed.
        PromptError: if a subject's files are not there.
    """
    require_extra("lm_eval")
    task = one.task if isinstance(one, Utility) else "mmlu"
    path = run.locate(one.data)
    if task == "mmlu":
        files, tasks = mmlu(one, path)
    else:
        files, tasks = [path], [gsm8k(one, path)]
    folder = run.folder / "tasks" / named(one)
    for each in tasks:
        write_text(folder / f"{each['task']}.yaml", yaml.safe_dump(each, sort_keys=False))
    names = [each["task"] for each in tasks]
    with run.progress(named(one), len(run.subjects)) as advance:
        found = run.each(lambda: samples_of(one, run, folder, names, advance))
    items = [item for name in names for item in items_of(name, [side[name] for side in found])]
    if task == "mmlu":
        sides = [accuracies(items, place) for place in range(len(run.subjects))]
    else:
        sides = [extracted(side[names[0]]) for side in found]
    digest = fingerprint([[file.name, fingerprint_file(file)] for file in files])
    origin = Origin(task, digest, "MIT", ORIGINS[task], len(items))
    return MeasureResult(
        named(one), one.kind, origin, len(items), sides, items=items, change=changed(items),
        command=command(one, run, folder, names),
    )  # fmt: skip


ORIGINS = {"mmlu": "hendrycks/test", "gsm8k": "openai/grade-school-math"}


def mmlu(one: Utility | Knowledge, folder: Path) -> tuple[list[Path], list[dict[str, Any]]]:
    """The files and the tasks of the subjects of MMLU.

    Raises:
        PromptError: if a subject has no files.
    """
    known = sorted(path.name.removesuffix("_test.csv") for path in folder.glob("test/*_test.csv"))
    domain = SUBJECTS.get(one.domain, ()) if isinstance(one, Knowledge) else tuple(known)
    chosen = one.subjects or domain
    files, tasks = [], []
    for subject in chosen:
        pair = [folder / split / f"{subject}_{split}.csv" for split in ("dev", "test")]
        if not all(path.is_file() for path in pair):
            raise PromptError(
                "a subject of MMLU must have the files dev/<subject>_dev.csv and test/<subject>_test.csv",
                got=f"none of {subject!r}",
                remedy=f"choose of {', '.join(known) or 'another folder'}",
                where=folder,
            )
        files += pair
        about = f"multiple choice questions (with answers) about {subject.replace('_', ' ')}"
        tasks.append(
            {
                "include": str(TEMPLATES / "mmlu.yaml"),
                "task": f"palette_mmlu_{subject}",
                "description": f"The following are {about}.\n\n",
                "dataset_kwargs": {"folder": str(folder.resolve()), "subject": subject},
                "num_fewshot": one.shots,
            }
        )
    if not tasks:
        raise PromptError("MMLU must have a subject", got="a folder without one", where=folder)
    return files, tasks


def gsm8k(one: Utility | Knowledge, path: Path) -> dict[str, Any]:
    """The task of GSM8K."""
    return {
        "include": str(TEMPLATES / "gsm8k.yaml"),
        "task": "palette_gsm8k",
        "dataset_kwargs": {"file": str(path.resolve()), "shots": one.shots},
        "num_fewshot": one.shots,
        "generation_kwargs": {
            "until": ["Question:", "</s>", "<|im_end|>"],
            "do_sample": False,
            "max_gen_toks": one.reply_tokens if isinstance(one, Utility) else 0,
        },
    }


def samples_of(
    one: Utility | Knowledge, run: SuiteRun, folder: Path, names: Sequence[str], advance: Any
) -> Mapping[str, list[dict[str, Any]]]:
    """lm-eval's samples of each task, with the model as it is now."""
    found = sampled(
        run.backbone,
        {"batch_size": one.batch, **thinking(one, run)},
        tasks=list(names),
        task_manager=task_manager(folder),
        limit=one.limit,
        apply_chat_template=one.chat,
        fewshot_as_multiturn=one.chat,
        system_instruction=system(one, run) or None,
    )
    advance(1)
    return found


def thinking(one: Utility | Knowledge, run: SuiteRun) -> dict[str, bool]:
    """The switch for templates that think, where the questions stand in the template."""
    return {"enable_thinking": False} if one.chat and run.backbone.thinking == "closed" else {}


def system(one: Utility | Knowledge, run: SuiteRun) -> str:
    """The system prompt before questions that stand in the template; none before others."""
    return run.backbone.system if one.chat else ""


def command(one: Utility | Knowledge, run: SuiteRun, folder: Path, names: Sequence[str]) -> str:
    """lm-eval's own command for the same questions to the plain backbone."""
    model = run.backbone.model
    given = {
        "pretrained": run.model_folder,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attn_implementation": model.config._attn_implementation,
        **thinking(one, run),
    }
    arguments = ",".join(f"{key}={value}" for key, value in given.items())
    words = [
        "lm_eval", "--model", "hf", "--model_args", arguments,
        "--include_path", str(folder), "--tasks", ",".join(names),
        "--batch_size", str(one.batch), "--device", str(model.device),
    ]  # fmt: skip
    if one.limit is not None:
        words += ["--limit", str(one.limit)]
    if one.chat:
        words += ["--apply_chat_template", "--fewshot_as_multiturn"]
    if said := system(one, run):
        words += ["--system_instruction", said]
    return shlex.join(words)


def items_of(name: str, sides: Sequence[list[dict[str, Any]]]) -> list[Item]:
    """The questions of one task: the letter chosen on each side, or whether the number is the right one."""
    items = []
    subject = name.removeprefix("palette_").removeprefix("mmlu_")
    for samples in zip(*sides, strict=True):
        first = samples[0]
        if name != "palette_gsm8k":
            right = tuple(bool(each["acc"] == 1.0) for each in samples)
            costs = [[response[0] for response in each["filtered_resps"]] for each in samples]
            said = tuple(LETTERS[int(np.argmax(each))] for each in costs)
            expected = LETTERS[int(first["target"])]
        elif first["filter"] == FILTERS[0]:
            right = tuple(bool(each["exact_match"] == 1.0) for each in samples)
            said = tuple("right" if holds else "wrong" for holds in right)
            expected = "right"
        else:
            continue
        items.append(Item(f"{subject}-{first['doc_id']}", first["prompt_hash"], said, right, expected))
    return items


def accuracies(items: Sequence[Item], place: int) -> Figures:
    """The accuracy of all questions, and of each subject where there are several."""
    subjects: dict[str, list[Item]] = {}
    for item in items:
        subjects.setdefault(item.id.rpartition("-")[0], []).append(item)
    groups = {"acc": items}
    if len(subjects) > 1:
        groups |= {f"acc.{name}": group for name, group in subjects.items()}
    return {name: share(group, lambda item: item.counted[place]) for name, group in groups.items()}


def extracted(samples: Sequence[dict[str, Any]]) -> Figures:
    """The accuracy of GSM8K by each way to find the number."""
    groups = {name: [sample for sample in samples if sample["filter"] == name] for name in FILTERS}
    return {name: share(group, lambda one: one["exact_match"] == 1.0) for name, group in groups.items()}
