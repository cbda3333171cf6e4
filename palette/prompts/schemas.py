"""The schemas of public safety sets: by which columns each is known, and how a row of it is read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from palette.errors import PromptError
from palette.prompts.redaction import shown
from palette.prompts.tables import KEY, Row
from palette.prompts.taxonomy import CATEGORIES, Label

OWN = "rows"
"""The schema of a user's own file, whose columns are named as in ``<domain>.jsonl``."""

IMAGES = ("SD_TYPO", "")
"""Folders of MM-SafetyBench's images below the one named after the scenario; the typographic first."""


@dataclass(frozen=True)
class Schema:
    """How one set is read. ``columns`` are those by which it is known; others may stand beside them."""

    name: str
    columns: frozenset[str]
    prompt: str
    """The column of the text."""
    category: tuple[str, ...] = ()
    """The columns whose values together are the category; none where all rows are alike."""
    key: str | None = None
    """The column of the set's own id."""
    compose: Callable[[Row, Path], str] | None = None
    """How the text is made, where it is not simply the column."""
    answer: Callable[[Row], str] | None = None
    image: Callable[[Row, Path], str | None] | None = None
    licence: str = "not stated"
    origin: str = "not stated"

    def label(self, row: Row, path: Path) -> Label:
        """The labels of a row's category.

        Raises:
            PromptError: if the category is not in the table.
        """
        stated = [str(row.values.get(column, "")) for column in self.category]
        category = " ".join(stated) if self.name != "mm_safetybench" else path.stem[:2]
        known = CATEGORIES[self.name]
        label = known.get(category.strip().casefold())
        if label is None:
            raise PromptError(
                f"a category of {self.name} must be one that has a hazard and a tier",
                got=shown(category),
                remedy=f"read the file as '{OWN}' with a column map, and give its labels",
                where=row.where,
            )
        return label


def text(row: Row, column: str) -> str:
    """The text of a column.

    Raises:
        PromptError: if it is none, or is empty.
    """
    value = row.values.get(column)
    if isinstance(value, str) and value.strip():
        return value
    raise PromptError(
        f"{column} must be a text that is not empty",
        got="an empty one"
        if value is None or isinstance(value, str)
        else f"a value of type {type(value).__name__}",
        where=row.where,
    )


def _in_context(row: Row, path: Path) -> str:
    """HarmBench's behaviour, behind its context where it has one."""
    context = row.values.get("ContextString")
    behaviour = text(row, "Behavior")
    return f"{context}\n\n---\n\n{behaviour}" if isinstance(context, str) and context.strip() else behaviour


def _only_turn(row: Row, path: Path) -> str:
    turns = row.values["turns"]
    if isinstance(turns, list) and len(turns) == 1 and isinstance(turns[0], str) and turns[0].strip():
        return turns[0]
    raise PromptError("turns must be a list of one text", got=type(turns).__name__, where=row.where)


def _to_an_image(row: Row, path: Path) -> str:
    return text(row, "Rephrased Question" if _image(row, path) else "Question")


def _image(row: Row, path: Path) -> str | None:
    """A row's image, relative to its file; None where the set lies there without its images."""
    if not (folder := _image_folder(path)):
        return None
    name = str(row.values[KEY])
    for ending in ("jpg", "jpeg", "png"):
        if re.fullmatch(r"[0-9A-Za-z_-]{1,32}", name) and (folder / f"{name}.{ending}").is_file():
            return Path(os.path.relpath(folder / f"{name}.{ending}", path.parent)).as_posix()
    raise PromptError(
        "every row must have its image beside it",
        got=f"no {shown(name)} in {folder.name}",
        remedy="complete the folder, or move it away to read the text alone",
        where=row.where,
    )


def _image_folder(path: Path) -> Path | None:
    roots = (path.parent / "imgs", path.parent.parent / "imgs", path.parent)
    wanted = (root / path.stem / kind for root in roots for kind in IMAGES)
    return next((folder for folder in wanted if folder.is_dir()), None)


def _after_the_hashes(row: Row) -> str:
    _, mark, number = text(row, "answer").rpartition("####")
    if not mark:
        # Many tables have these two columns, and one of restricted questions must not be read as benign.
        raise PromptError(
            "an answer of gsm8k must end in #### and its number",
            got="neither",
            remedy="read the file as 'rows' with the column map {prompt: question}",
            where=row.where,
        )
    return number.strip().replace(",", "")


MIT, BY = "MIT", "CC BY 4.0"
_COCONOT = frozenset({"id", "category", "subcategory", "prompt", "response"})

SCHEMAS: Mapping[str, Schema] = {
    schema.name: schema
    for schema in (
        Schema(
            "harmbench",
            frozenset({"Behavior", "FunctionalCategory", "SemanticCategory", "BehaviorID"}),
            "Behavior",
            ("SemanticCategory",),
            "BehaviorID",
            compose=_in_context,
            licence=MIT,
            origin="centerforaisafety/HarmBench (arXiv 2402.04249)",
        ),
        Schema(
            "jailbreakbench",
            frozenset({"Goal", "Target", "Behavior", "Category"}),
            "Goal",
            ("Category",),
            "Index",
            licence=MIT,
            origin="JailbreakBench/JBB-Behaviors (arXiv 2404.01318)",
        ),
        Schema(
            "strongreject",
            frozenset({"category", "source", "forbidden_prompt"}),
            "forbidden_prompt",
            ("category",),
            licence=MIT,
            origin="alexandrasouly/strongreject (arXiv 2402.10260)",
        ),
        Schema(
            "advbench",
            frozenset({"goal", "target"}),
            "goal",
            licence=MIT,
            origin="llm-attacks/llm-attacks (arXiv 2307.15043)",
        ),
        Schema(
            "ailuminate",
            frozenset({"release_prompt_id", "prompt_text", "hazard"}),
            "prompt_text",
            ("hazard",),
            "release_prompt_id",
            licence=BY,
            origin="mlcommons/ailuminate (arXiv 2503.05731)",
        ),
        Schema(
            "medsafetybench",
            frozenset({"harmful_medical_request", "safe_response"}),
            "harmful_medical_request",
            origin="AI4LIFE-GROUP/med-safety-bench (arXiv 2403.03744)",
        ),
        Schema(
            "sorrybench",
            frozenset({"question_id", "category", "turns"}),
            "turns",
            ("category",),
            "question_id",
            compose=_only_turn,
            licence="SORRY-Bench dataset licence",
            origin="sorry-bench/sorry-bench-202503 (arXiv 2406.14598)",
        ),
        Schema(
            "mm_safetybench",
            frozenset({KEY, "Question", "Changed Question", "Rephrased Question"}),
            "Question",
            key=KEY,
            compose=_to_an_image,
            image=_image,
            licence="CC BY-NC 4.0",
            origin="isXinLiu/MM-SafetyBench (arXiv 2311.17600)",
        ),
        Schema(
            "xstest",
            frozenset({"id", "prompt", "type", "label"}),
            "prompt",
            ("type", "label"),
            "id",
            licence=BY,
            origin="paul-rottger/exaggerated-safety (arXiv 2308.01263)",
        ),
        Schema(
            "cyberseceval_frr",
            frozenset({"mutated_prompt", "is_malicious", "attack_type"}),
            "mutated_prompt",
            ("is_malicious",),
            licence=MIT,
            origin="meta-llama/PurpleLlama (arXiv 2404.13161)",
        ),
        Schema(
            "coconot",
            _COCONOT,
            "prompt",
            key="id",
            licence=MIT,
            origin="allenai/noncompliance (arXiv 2407.12043)",
        ),
        Schema(
            "coconot_contrast",
            _COCONOT,
            "prompt",
            key="id",
            licence=MIT,
            origin="allenai/noncompliance (arXiv 2407.12043)",
        ),
        Schema(
            "gsm8k",
            frozenset({"question", "answer"}),
            "question",
            answer=_after_the_hashes,
            licence=MIT,
            origin="openai/grade-school-math (arXiv 2110.14168)",
        ),
    )
}
"""The sets of which the schema is known, in the order of the documentation."""


def recognised(columns: Collection[str], path: Path) -> str:
    """The name of the schema that a file's columns are known by; ``rows`` for one of the user's own.

    Raises:
        PromptError: if they fit none, or several.
    """
    fitting = [schema for schema in SCHEMAS.values() if schema.columns <= set(columns)]
    if len(fitting) == 1:
        return fitting[0].name
    if fitting:
        raise PromptError(
            "a file's columns must be those of one schema",
            got=f"columns of {' and '.join(schema.name for schema in fitting)}",
            remedy="name one with 'schema'",
            where=path,
        )
    if "prompt" in columns:
        return OWN
    raise PromptError(
        "a file's columns must be those of a known schema, or have 'prompt'",
        got=", ".join(sorted(shown(name) for name in columns)) or "no column that all rows have",
        remedy="name the columns with 'columns', for example {prompt: question}",
        where=path,
    )


def named(name: str, path: Path) -> Schema | None:
    """The schema of that name; None for the user's own rows.

    Raises:
        PromptError: if there is none of that name; the sentence names the nearest.
    """
    known = [*SCHEMAS, OWN]
    if name not in known:
        near = get_close_matches(name, known, n=1)
        raise PromptError(
            f"schema must be one of {', '.join(known)}",
            got=shown(name),
            remedy=f"did you mean {near[0]}?" if near else None,
            where=path,
        )
    return SCHEMAS.get(name)
