"""What rows say, of the user's own and of public sets: the prompt, the accepted answers, the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palette.prompts.pictures import MARK
from palette.prompts.rows import redacted
from palette.prompts.selection import spelled
from palette.prompts.tables import TableRow

Content = str | tuple[tuple[tuple[str, str], ...], ...]

LETTERS = "ABCD"
MMLU = ("question", *LETTERS, "answer")
"""The columns of MMLU's files, which have no header."""
ASIDE = frozenset(
    ("index", "answer", "slice", "task", "rest", "id", "kind", "tier", "domain", "split", "hazard", "image")
)
"""Columns of LegalBench's tasks that are not asked, and labels that may stand beside them."""
SHOWN, ELSEWHERE = ("image", "image_url"), ("http:", "https:", "data:")
"""Types of a message's part that are images, and how the name of one begins that is no file."""
CUE = "Step-by-Step analysis:"
AS_ROWS = "read the file as 'rows' with a column map or a template"


def stated_content(row: TableRow, path: Path) -> Content:
    """A row's prompt as it is kept: its text, or its messages.

    Raises:
        PromptError: if it is neither.
    """
    prompt = row.values.get("prompt")
    if isinstance(prompt, str) and prompt.strip():
        return prompt
    if isinstance(prompt, list) and prompt:
        read = [_in_words(message) for message in prompt]
        if all(_is_message(message) for message in read):
            return tuple(tuple(sorted(message.items())) for message in read)
    raise row.error(
        "prompt must be a text, or a list of {role, content} messages",
        got=type(prompt).__name__ if prompt else "an empty one",
    )


def stated_answers(row: TableRow) -> tuple[str, ...]:
    """The reference reply that a row states, and the others that it accepts.

    Raises:
        PromptError: if it is no text, or no list of such.
    """
    value = row.values.get("answer")
    answers = value if isinstance(value, list) else [value]
    if not answers or not all(isinstance(answer, str) and answer for answer in answers):
        raise row.error("answer must be a text that is not empty, or a list of such", got=redacted(value))
    return tuple(answers)


def answers_if_any(row: TableRow) -> tuple[str, ...]:
    """The same of a table, whose rows may leave the column empty."""
    return () if row.values.get("answer") in (None, "") else stated_answers(row)


def images_if_any(row: TableRow, path: Path) -> tuple[str, ...]:
    """The images that a row names, in order; none where the column is empty or missing.

    Raises:
        PromptError: if it is neither a text nor a list of such.
    """
    image = row.values.get("image")
    given = image if isinstance(image, list) else [image] if image not in (None, "") else []
    if not all(isinstance(each, str) and each for each in given):
        raise row.error("image must be a path, or a list of such", got=type(image).__name__)
    return tuple(given)


def images_in_parts(row: TableRow) -> tuple[str, ...]:
    """The images that stand in the messages of a row's prompt, in order; one at least is named in each part.

    Raises:
        PromptError: if a part names none by its path.
    """
    prompt = row.values.get("prompt")
    chat = [each for each in prompt if isinstance(each, dict)] if isinstance(prompt, list) else []
    parts = [part for each in chat if isinstance(each.get("content"), list) for part in each["content"]]
    found = [_path_of(part) for part in parts if isinstance(part, dict) and part.get("type") in SHOWN]
    if not all(isinstance(each, str) and each and not each.startswith(ELSEWHERE) for each in found):
        raise row.error(
            "an image in a message must be named by the path of its file",
            got="something else",
            remedy="save it beside the prompts",
        )
    return tuple(found)


def _path_of(part: dict[str, Any]) -> Any:
    named = next((part[key] for key in ("image", "path", "image_url") if key in part), None)
    return named.get("url") if isinstance(named, dict) else named


def _in_words(message: Any) -> Any:
    """A message whose content is one text, with a mark for each image of its parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return message
    said = [
        MARK if part.get("type") in SHOWN else part.get("text") if part.get("type") == "text" else None
        for part in content
    ]
    return {**message, "content": "".join(said) if all(isinstance(each, str) for each in said) else None}  # type: ignore[arg-type]


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and set(message) == {"role", "content"}
        and all(isinstance(value, str) and value for value in message.values())
    )


def in_context(row: TableRow, path: Path) -> str:
    """HarmBench's behaviour, behind its context where it has one."""
    context = row.values.get("ContextString")
    behaviour = row.text("Behavior")
    return f"{context}\n\n---\n\n{behaviour}" if isinstance(context, str) and context.strip() else behaviour


def only_turn(row: TableRow, path: Path) -> str:
    """SORRY-Bench's one turn.

    Raises:
        PromptError: if there are several, or none.
    """
    turns = row.values["turns"]
    if isinstance(turns, list) and len(turns) == 1 and isinstance(turns[0], str) and turns[0].strip():
        return turns[0]
    raise row.error("turns must be a list of one text", got=type(turns).__name__)


def after_the_hashes(row: TableRow) -> tuple[str, ...]:
    """GSM8K's number, without the way to it.

    Raises:
        PromptError: if there is none.
    """
    _, mark, number = row.text("answer").rpartition("####")
    if not mark:
        # Many tables have these two columns, and one of restricted questions must not be read as benign.
        raise row.error(
            "an answer of gsm8k must end in #### and its number",
            got="neither",
            remedy="read the file as 'rows' with the column map {prompt: question}",
        )
    return (number.strip().replace(",", ""),)


def with_options(row: TableRow, path: Path) -> str:
    """MMLU's question, and under it its options by letter."""
    return "\n".join((row.text("question"), *(f"{letter}. {row.text(letter)}" for letter in LETTERS)))


def letter_or_option(row: TableRow) -> tuple[str, ...]:
    """The right letter, which is the reference, the option behind it, and the option alone.

    Raises:
        PromptError: if the answer is no letter.
    """
    letter = row.values.get("answer")
    if letter not in tuple(LETTERS):
        law = f"an answer of mmlu must be one of {', '.join(LETTERS)}"
        raise row.error(law, got=redacted(letter), remedy=AS_ROWS)
    return letter, f"{letter}. {row.text(letter)}", row.text(letter)


def laboratory_question(row: TableRow, path: Path) -> str:
    """LabSafety's question with its options, without the words that introduce both.

    Raises:
        PromptError: if it is none: many sets have the same three columns.
    """
    opening, mark, asked = row.text("input").strip().partition("Question:")
    question = asked.strip().removesuffix(CUE).strip()
    if opening or not mark or not question:
        raise row.error("an input of labsafety must begin with 'Question:'", got="another", remedy=AS_ROWS)
    return question


def parts_of_the_task(row: TableRow, path: Path) -> str:
    """What a task of LegalBench is about: its one text, or each under its column's name.

    Raises:
        PromptError: if there is none.
    """
    asked = {name: value for name, value in row.values.items() if name not in ASIDE}
    parts = {name: value for name, value in asked.items() if isinstance(value, str) and value.strip()}
    if not parts:
        raise row.error("a task of legalbench must have a text", got="none", remedy=AS_ROWS)
    if len(parts) == 1:
        return next(iter(parts.values()))
    return "\n".join(f"{name.replace('_', ' ').capitalize()}: {value}" for name, value in parts.items())


def written_answer(row: TableRow) -> tuple[str, ...]:
    """The answer as it stands."""
    return (row.text("answer"),)


def yes_no_or_maybe(row: TableRow) -> tuple[str, ...]:
    """PubMedQA's answer.

    Raises:
        PromptError: if it is another: many tables have the same columns.
    """
    answer = row.text("answer")
    if answer not in ("yes", "no", "maybe"):
        law = "an answer of pubmedqa must be yes, no or maybe"
        raise row.error(law, got=redacted(answer), remedy=AS_ROWS)
    return (answer,)


def scaled_values(row: TableRow) -> tuple[str, ...]:
    """TAT-QA's answer with its scale in words, which is the reference; as it is written; and without.

    Raises:
        PromptError: if it is neither a value nor a list of them.
    """
    given: Any = row.values.get("answer")
    each = given if isinstance(given, list) else [given]
    values = [text for text in map(spelled, each) if text]
    if not values:
        raise row.error("an answer of tatqa must be a value or a list of them", got=type(given).__name__)
    plain, scale = ", ".join(values), spelled(row.values.get("scale"))
    if not scale:
        return (plain,)
    return (f"{plain} {scale}", *((f"{plain}%",) if scale == "percent" else ()), plain)
