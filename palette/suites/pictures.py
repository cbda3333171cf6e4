"""MMMU and MMBench: questions with pictures, of whose options the one with the likeliest letter is chosen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from palette.errors import BackboneError, PromptError
from palette.fingerprints import fingerprint, fingerprint_file
from palette.prompts import Prompt, load_source, messages
from palette.prompts.rows import PromptSet, case_folded_hash, spread
from palette.prompts.schemas import PROVENANCE
from palette.prompts.tables import READERS
from palette.suites.harness import accuracies
from palette.suites.run import Item, MeasureResult, Origin, SuiteRun, changed
from palette.suites.schema import Utility, named

OPTION = re.compile(r"^([A-J])\. ", re.MULTILINE)
ASKED = "\nAnswer with the letter of the right option alone."
AT_ONCE = 16
"""Questions whose logits are held at once."""


def look(one: Utility, run: SuiteRun) -> MeasureResult:
    """Shares in [0, 1] of questions answered rightly, in all and a subject, with their intervals.

    A question stands in the chat template with its pictures; open ones are not asked.

    Raises:
        PromptError: if there is no question, or the model reads words alone.
        BackboneError: if it has no token of its own for each letter.
    """
    files = files_of(run.locate(one.data))
    asked: list[tuple[str, Prompt]] = []
    for file in files:
        rows = run.shown(load_source(file, one.task, drop_overlaps=True, domain="general").prompts)
        chosen = [row for row in rows if len(OPTION.findall(words_of(row))) > 1]
        subject = file.parent.name if len(files) > 1 else one.task
        asked += (
            [(subject, chosen[i]) for i in spread(len(chosen), one.limit or len(chosen))] if chosen else []
        )
    PromptSet(tuple(row for _, row in asked)).required("question with options")
    said = [
        chosen_letters(run, [row for _, row in asked], side, named(one)) for side in range(len(run.subjects))
    ]
    items = [
        Item(
            f"{subject}-{number}",
            case_folded_hash(row),
            tuple(letters),
            tuple(x == row.answer for x in letters),
            row.answer,
        )
        for number, ((subject, row), letters) in enumerate(zip(asked, zip(*said, strict=True), strict=True))
    ]
    digest = fingerprint([[file.name, fingerprint_file(file)] for file in files])
    licence, source = PROVENANCE[one.task]
    sides = [accuracies(items, place) for place in range(len(run.subjects))]
    origin = Origin(one.task, digest, licence, source, len(items))
    return MeasureResult(named(one), one.kind, origin, len(items), sides, items=items, change=changed(items))


def files_of(path: Path) -> list[Path]:
    """The file itself, or a folder's, one a subject: those of the validation split, where some are named so.

    Raises:
        PromptError: if it has none.
    """
    if path.is_file():
        return [path]
    found = sorted(each for each in path.rglob("*") if each.suffix in READERS)
    if not found:
        raise PromptError("a folder of questions must hold files", got="none", where=path)
    return [each for each in found if each.name.startswith("validation")] or found


def words_of(row: Prompt) -> str:
    """What a question says."""
    return str(messages(row)[-1]["content"])


def chosen_letters(run: SuiteRun, rows: Sequence[Prompt], side: int, name: str) -> list[str]:
    """For each question the likeliest of its options' letters as the reply's first token."""
    backbone, letters = run.backbone, list[str]()
    known = {letter for row in rows for letter in OPTION.findall(words_of(row))}
    ids = {letter: backbone.encode(letter)[:1] for letter in sorted(known)}
    if len({tuple(each) for each in ids.values() if each}) < len(ids):
        raise BackboneError(
            "a model that is asked for a letter must have a token for each",
            got=f"the same one for some of {', '.join(ids)}",
            remedy="ask it the set as prompts, with over_refusal",
            where=backbone.name,
        )
    with run.progress(name, len(rows)) as advance:
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            chats = [
                [*chat[:-1], {**chat[-1], "content": chat[-1]["content"] + ASKED}]
                for chat in map(messages, part)
            ]
            logits = run.subjects[side].logits(
                [backbone.render(chat) for chat in chats], [ids[min(ids)]] * len(part)
            )
            for row, each in zip(part, logits, strict=True):
                letters.append(
                    max(OPTION.findall(words_of(row)), key=lambda letter: float(each[0, ids[letter][0]]))
                )
            advance(len(part))
    return letters
