"""The schemas of public safety sets: by which columns each is known, and how a row of it is read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from palette.errors import PromptError
from palette.prompts.rows import redacted
from palette.prompts.tables import KEY, TableRow
from palette.prompts.taxonomy import CATEGORIES, Label

OWN = "rows"
"""The schema of a user's own file, whose columns are named as in ``<domain>.jsonl``."""

PROVENANCE = {
    "harmbench": ("MIT", "centerforaisafety/HarmBench (arXiv 2402.04249)"),
    "jailbreakbench": ("MIT", "JailbreakBench/JBB-Behaviors (arXiv 2404.01318)"),
    "strongreject": ("MIT", "alexandrasouly/strongreject (arXiv 2402.10260)"),
    "advbench": ("MIT", "llm-attacks/llm-attacks (arXiv 2307.15043)"),
    "ailuminate": ("CC BY 4.0", "mlcommons/ailuminate (arXiv 2503.05731)"),
    "medsafetybench": ("not stated", "AI4LIFE-GROUP/med-safety-bench (arXiv 2403.03744)"),
    "sorrybench": ("SORRY-Bench dataset licence", "sorry-bench/sorry-bench-202503 (arXiv 2406.14598)"),
    "mm_safetybench": ("CC BY-NC 4.0", "isXinLiu/MM-SafetyBench (arXiv 2311.17600)"),
    "xstest": ("CC BY 4.0", "paul-rottger/exaggerated-safety (arXiv 2308.01263)"),
    "cyberseceval_frr": ("MIT", "meta-llama/PurpleLlama (arXiv 2404.13161)"),
    "coconot": ("MIT", "allenai/noncompliance (arXiv 2407.12043)"),
    "coconot_contrast": ("MIT", "allenai/noncompliance (arXiv 2407.12043)"),
    "gsm8k": ("MIT", "openai/grade-school-math (arXiv 2110.14168)"),
}
"""The licence and the source of each public set."""

IMAGES = ("SD_TYPO", "")
"""Folders of MM-SafetyBench's images below the one named after the scenario; the typographic first."""


@dataclass(frozen=True)
class Schema:
    """How one set is read."""

    name: str
    columns: tuple[str, ...]
    """Those by which it is known, that of the text first; others may stand beside them."""
    category: tuple[str, ...] = ()
    """The columns whose values together are the category; none where all rows are alike."""
    key: str | None = None
    """The column of the set's own id."""
    compose: Callable[[TableRow, Path], str] | None = None
    """How the text is made, where it is not simply the column."""
    answer: Callable[[TableRow], str] | None = None
    image: Callable[[TableRow, Path], str | None] | None = None

    @property
    def prompt(self) -> str:
        """The column of the text."""
        return self.columns[0]

    def label(self, row: TableRow, path: Path) -> Label:
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
                got=redacted(category),
                remedy=f"read the file as '{OWN}' with a column map, and give its labels",
                where=row.where,
            )
        return label


def text(row: TableRow, column: str) -> str:
    """The text of a column.

    Raises:
        PromptError: if it is none, or is empty.
    """
    value = row.values.get(column)
    if isinstance(value, str) and value.strip():
        return value
    empty = value is None or isinstance(value, str)
    got = "an empty one" if empty else f"a value of type {type(value).__name__}"
    raise PromptError(f"{column} must be a text that is not empty", got=got, where=row.where)


def _in_context(row: TableRow, path: Path) -> str:
    """HarmBench's behaviour, behind its context where it has one."""
    context = row.values.get("ContextString")
    behaviour = text(row, "Behavior")
    return f"{context}\n\n---\n\n{behaviour}" if isinstance(context, str) and context.strip() else behaviour


def _only_turn(row: TableRow, path: Path) -> str:
    turns = row.values["turns"]
    if isinstance(turns, list) and len(turns) == 1 and isinstance(turns[0], str) and turns[0].strip():
        return turns[0]
    raise PromptError("turns must be a list of one text", got=type(turns).__name__, where=row.where)


def _to_an_image(row: TableRow, path: Path) -> str:
    return text(row, "Rephrased Question" if _image(row, path) else "Question")


def _image(row: TableRow, path: Path) -> str | None:
    """A row's image, relative to its file; None where the set lies there without its images."""
    if not (folder := _image_folder(path)):
        return None
    name = str(row.values[KEY])
    for ending in ("jpg", "jpeg", "png"):
        if re.fullmatch(r"[0-9A-Za-z_-]{1,32}", name) and (folder / f"{name}.{ending}").is_file():
            return Path(os.path.relpath(folder / f"{name}.{ending}", path.parent)).as_posix()
    raise PromptError(
        "every row must have its image beside it",
        got=f"no {redacted(name)} in {folder.name}",
        remedy="complete the folder, or move it away to read the text alone",
        where=row.where,
    )


def _image_folder(path: Path) -> Path | None:
    roots = (path.parent / "imgs", path.parent.parent / "imgs", path.parent)
    wanted = (root / path.stem / kind for root in roots for kind in IMAGES)
    return next((folder for folder in wanted if folder.is_dir()), None)


def _after_the_hashes(row: TableRow) -> str:
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


_COCONOT = ("prompt", "id", "category", "subcategory", "response")

_SCHEMAS = (
    Schema(
        "harmbench",
        ("Behavior", "FunctionalCategory", "SemanticCategory", "BehaviorID"),
        ("SemanticCategory",),
        "BehaviorID",
        compose=_in_context,
    ),
    Schema("jailbreakbench", ("Goal", "Target", "Behavior", "Category"), ("Category",), "Index"),
    Schema("strongreject", ("forbidden_prompt", "category", "source"), ("category",)),
    Schema("advbench", ("goal", "target")),
    Schema("ailuminate", ("prompt_text", "release_prompt_id", "hazard"), ("hazard",), "release_prompt_id"),
    Schema("medsafetybench", ("harmful_medical_request", "safe_response")),
    Schema(
        "sorrybench", ("turns", "question_id", "category"), ("category",), "question_id", compose=_only_turn
    ),
    Schema(
        "mm_safetybench",
        ("Question", KEY, "Changed Question", "Rephrased Question"),
        key=KEY,
        compose=_to_an_image,
        image=_image,
    ),
    Schema("xstest", ("prompt", "id", "type", "label"), ("type", "label"), "id"),
    Schema("cyberseceval_frr", ("mutated_prompt", "is_malicious", "attack_type"), ("is_malicious",)),
    Schema("coconot", _COCONOT, key="id"),
    Schema("coconot_contrast", _COCONOT, key="id"),
    Schema("gsm8k", ("question", "answer"), answer=_after_the_hashes),
)
SCHEMAS: Mapping[str, Schema] = {schema.name: schema for schema in _SCHEMAS}
"""The sets of which the schema is known, in the order of the documentation."""


def recognised_schema(columns: Collection[str], path: Path) -> str:
    """The name of the schema that a file's columns are known by; ``rows`` for one of the user's own.

    Raises:
        PromptError: if they fit none, or several.
    """
    fitting = [schema for schema in SCHEMAS.values() if set(schema.columns) <= set(columns)]
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
        got=", ".join(sorted(redacted(name) for name in columns)) or "no column that all rows have",
        remedy="name the columns with 'columns', for example {prompt: question}",
        where=path,
    )


def named_schema(name: str, path: Path) -> Schema | None:
    """The schema of that name; None for the user's own rows.

    Raises:
        PromptError: if there is none of that name; the sentence names the nearest.
    """
    known = [*SCHEMAS, OWN]
    if name not in known:
        near = get_close_matches(name, known, n=1)
        raise PromptError(
            f"schema must be one of {', '.join(known)}",
            got=redacted(name),
            remedy=f"did you mean {near[0]}?" if near else None,
            where=path,
        )
    return SCHEMAS.get(name)
