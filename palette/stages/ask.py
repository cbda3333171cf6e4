"""The ask verb: what the backbone and the adapter reply, side by side; never to prompts of the floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palette.authorisation import Role
from palette.errors import PromptError
from palette.evaluation.gate import INSIDE
from palette.evaluation.outcomes import OUTCOMES
from palette.evaluation.replies import Replies
from palette.evaluation.subjects import Subject
from palette.evaluation.wrappers import DRAWN, WRAPPERS, inside
from palette.files import read_json
from palette.processes import Progress, silent
from palette.prompts import Prompt, PromptSet, messages
from palette.prompts.pictures import Picture, marked, stated_picture, without_marks
from palette.prompts.rows import Message, normalised_text
from palette.reporting.report import Report
from palette.run import Run
from palette.stages.load import load, require_id

OWN = "own"
"""The id of a prompt that the caller gave in words."""


def ask(
    folder: Path | str,
    prompt: str | None = None,
    ids: Sequence[str] = (),
    adapter: Path | str | None = None,
    progress: Progress = silent,
    images: Sequence[Path | str] = (),
) -> dict[str, Any]:
    """The replies to some prompts without and with the adapter, with the labels that evaluate gave them.

    ``prompt`` is an id or a text of the caller's own, before which ``images`` are shown. Without it and
    ``ids`` the prompts are asked that the report names: of the rules that failed if any did. Prompts of the
    floor are not asked, nor is a text or a picture that holds one; their ids stand under ``withheld``.

    Raises:
        OutputError: if there is no report in the folder.
        PromptError: if an id is none of the run's, or an image cannot be shown.
        BackboneError: if the model reads words alone, and there is an image.
        AdapterError: if the adapter that the report is of is not there, or it is another one.
    """
    loaded = load(folder, adapter, progress)
    run, report, mounted = loaded.run, loaded.report, loaded.adapter
    shown = tuple(stated_picture(Path(image), image) for image in images)
    questions = _questions(run, report, (prompt, shown), ids)
    asked = [question for question in questions if not question.floor]
    rendered = [run.backbone.render(question.chat) for question in asked]
    with progress("ask", 2 * len(asked)) as advance:
        replies = Replies(run.replies_folder, advance)
        limits = [run.recipe.reply_tokens] * len(asked)
        sides = [
            [run.backbone.decode(said) for said in replies.of(Subject(run.backbone, each), rendered, limits)]
            for each in (None, mounted)
        ]
    labels = _labels(run.folder)
    return {
        "run": str(folder),
        "asked": [
            {"id": each.id, "prompt": each.text, "base": base, "adapted": adapted, **labels.get(each.id, {})}
            for each, base, adapted in zip(asked, *sides, strict=True)
        ],
        "withheld": [question.id for question in questions if question.floor],
    }


@dataclass(frozen=True)
class Question:
    """A prompt to be asked: its id, its messages, and whether it is on the floor."""

    id: str
    chat: list[Message]
    floor: bool

    @property
    def text(self) -> str:
        """What the last message says."""
        return without_marks(str(self.chat[-1]["content"]))


def _questions(
    run: Run, report: Report, own: tuple[str | None, tuple[Picture, ...]], ids: Sequence[str]
) -> list[Question]:
    """What is to be asked, each once, in order; ``own`` are the caller's words, or an id, and pictures."""
    prompt, pictures = own
    rows = {row.id: row for row in run.prompts}
    floor = run.prompts.where(lambda row: run.authorisation.role(row) is Role.FLOOR)
    if prompt is not None and prompt not in rows and not ids:
        others = run.prompts.where(lambda row: run.authorisation.role(row) is not Role.FLOOR)
        return [_of_words(prompt, pictures, floor, others)]
    if pictures:
        raise PromptError(
            "images are shown before a prompt in words of one's own",
            got="none, or an id" if not ids else "ids",
            remedy="give the words that are asked beside them",
        )
    # Without any, those that rules of the gate name: of those that failed, or of all where none did.
    rules = [rule for rule in report.gate.rules if not rule.passed] or report.gate.rules
    names = [*ids, *([prompt] if prompt is not None else [])] or [each for r in rules for each in r.ids]
    on_floor = {row.id for row in floor}
    found = []
    for name in dict.fromkeys(names):
        row_id, wrapper = _parted(name, rows)
        require_id(run, rows, row_id, name)
        chat = messages(rows[row_id])
        found.append(Question(name, inside(chat, wrapper) if wrapper else chat, row_id in on_floor))
    return found


def _parted(name: str, rows: Mapping[str, Prompt]) -> tuple[str, str]:
    """A prompt's id and the wrapper that it was asked in, as rules of the gate name them."""
    row_id, _, wrapper = name.rpartition(INSIDE)
    return (row_id, wrapper) if name not in rows and wrapper in (*WRAPPERS, *DRAWN) else (name, "")


def _of_words(text: str, pictures: tuple[Picture, ...], floor: PromptSet, others: PromptSet) -> Question:
    """A question in the caller's own words; one that holds a prompt of the floor is on it.

    Where that stands in a picture, its picture is, unless other prompts show the same: then its words too.
    """
    said, given = normalised_text(text), set(pictures)
    written = [row for row in floor if row.cell == "picture"]
    alone = {one for row in written for one in row.pictures} - {one for row in others for one in row.pictures}
    asked = [(row, normalised_text(row.request)) for row in floor]
    held = any(
        words and words in said and (row.cell != "picture" or given >= {*row.pictures})
        for row, words in asked
    )
    chat: Message = {"role": "user", "content": marked(text, len(pictures), "the prompt")}
    return Question(OWN, [chat | ({"pictures": pictures} if pictures else {})], held or bool(given & alone))


def _labels(folder: Path) -> dict[str, dict[str, str]]:
    """The labels that evaluate gave to both replies, by prompt; none where it left no outcomes."""
    rows = read_json(folder / OUTCOMES) if (folder / OUTCOMES).is_file() else []
    names = ("label_base", "label_adapted")
    return {row["prompt_id"]: {name: row[name] for name in names} for row in rows}
