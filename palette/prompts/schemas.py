"""Public sets, of safety and of professions: how each is known and read, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from palette.prompts import contents, pictured_sets
from palette.prompts.categories import CATEGORIES, PromptLabel
from palette.prompts.contents import Content
from palette.prompts.rows import Kind, redacted
from palette.prompts.tables import KEY, TableRow

OWN = "rows"
"""The name of the schema of a user's own file, whose columns are named as in ``<domain>.jsonl``."""

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
    "xstest_v2": ("CC BY 4.0", "paul-rottger/exaggerated-safety (arXiv 2308.01263)"),
    "cyberseceval_frr": ("MIT", "meta-llama/PurpleLlama (arXiv 2404.13161)"),
    "coconot": ("MIT", "allenai/noncompliance (arXiv 2407.12043)"),
    "coconot_contrast": ("MIT", "allenai/noncompliance (arXiv 2407.12043)"),
    "gsm8k": ("MIT", "openai/grade-school-math (arXiv 2110.14168)"),
    "kqa": ("MIT", "Itaymanes/K-QA (arXiv 2401.14493)"),
    "medquad": ("CC BY 4.0", "abachaa/MedQuAD (arXiv 1901.08079)"),
    "pubmedqa": ("MIT", "pubmedqa/pubmedqa (arXiv 1909.06146)"),
    "legalbench": ("not stated", "HazyResearch/legalbench (arXiv 2308.11462)"),
    "tatqa": ("CC BY 4.0", "NExTplusplus/TAT-QA (arXiv 2105.07624)"),
    "labsafety": ("MIT", "YujunZhou/LabSafety-Bench (arXiv 2410.14182)"),
    "mmlu": ("MIT", "hendrycks/test (arXiv 2009.03300)"),
    "mmmu": ("Apache-2.0", "MMMU/MMMU (arXiv 2311.16502)"),
    "mmbench": ("not stated", "open-compass/MMBench (arXiv 2307.06281)"),
}
"""The licence and the source of each public set."""


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
    compose: Callable[[TableRow, Path], Content] | None = None
    """How the prompt is made, where it is not simply the column."""
    answer: Callable[[TableRow], tuple[str, ...]] | None = None
    """The replies that are accepted, the reference first."""
    images: Callable[[TableRow, Path], tuple[str | bytes, ...]] | None = None
    """The images of a row: paths beside its file, or their bytes."""
    kind: Kind | None = None
    """The kind of rows whose labels are the user's to state, where none is stated."""
    header: tuple[str, ...] = ()
    """The names of its columns, where its files have no header."""
    named: bool = False
    """Whether a source must name it, since many tables have its columns."""

    @property
    def states_labels(self) -> bool:
        """Whether a row or its source states its labels, since the set has no categories."""
        return self.name not in CATEGORIES

    def content(self, row: TableRow, path: Path) -> Content:
        """A row's prompt.

        Raises:
            PromptError: if it has none.
        """
        return self.compose(row, path) if self.compose else row.text(self.columns[0])

    def label(self, row: TableRow, path: Path) -> PromptLabel:
        """The labels of a row's category.

        Raises:
            PromptError: if the category is not in the table.
        """
        stated = [str(row.values.get(column, "")) for column in self.category]
        category = " ".join(stated) if self.name != "mm_safetybench" else path.stem[:2]
        known = CATEGORIES[self.name]
        label = known.get(category.strip().casefold())
        if label is None:
            raise row.error(
                f"a category of {self.name} must be one that has a hazard and a tier",
                got=redacted(category),
                remedy=f"read the file as '{OWN}' with a column map, and give its labels",
            )
        return label


_COCONOT = ("prompt", "id", "category", "subcategory", "response")

_SCHEMAS = (
    Schema(
        "harmbench",
        ("Behavior", "FunctionalCategory", "SemanticCategory", "BehaviorID"),
        ("SemanticCategory",),
        "BehaviorID",
        compose=contents.in_context,
    ),
    Schema("jailbreakbench", ("Goal", "Target", "Behavior", "Category"), ("Category",), "Index"),
    Schema("strongreject", ("forbidden_prompt", "category", "source"), ("category",)),
    Schema("advbench", ("goal", "target")),
    Schema("ailuminate", ("prompt_text", "release_prompt_id", "hazard"), ("hazard",), "release_prompt_id"),
    Schema("medsafetybench", ("harmful_medical_request", "safe_response")),
    Schema(
        "sorrybench",
        ("turns", "question_id", "category"),
        ("category",),
        "question_id",
        compose=contents.only_turn,
    ),
    Schema(
        "mm_safetybench",
        ("Question", KEY, "Changed Question", "Rephrased Question"),
        key=KEY,
        compose=pictured_sets.to_an_image,
        images=pictured_sets.image_beside,
    ),
    Schema("xstest", ("prompt", "id", "type", "label"), ("type", "label"), "id"),
    # The set's own second file, whose type alone says which rows are contrasts.
    Schema("xstest_v2", ("prompt", "id_v2", "type"), ("type",), "id_v2"),
    Schema("cyberseceval_frr", ("mutated_prompt", "is_malicious", "attack_type"), ("is_malicious",)),
    Schema("coconot", _COCONOT, key="id"),
    Schema("coconot_contrast", _COCONOT, key="id"),
    Schema("gsm8k", ("question", "answer"), answer=contents.after_the_hashes),
    # Professional sets. Answers of whole sentences, which no reply equals, are read only on demand.
    Schema("kqa", ("Question", "ICD_10_diag"), kind="benign"),
    # Its ids are of one folder, and no set's key.
    Schema("medquad", ("question", "answer", "focus", "source"), kind="benign"),
    Schema(
        "pubmedqa", ("question", "answer", "year"), key="id", answer=contents.yes_no_or_maybe, kind="benign"
    ),
    Schema(
        "legalbench",
        ("answer", "index"),
        compose=contents.parts_of_the_task,
        answer=contents.written_answer,
        kind="benign",
        named=True,
    ),
    Schema(
        "tatqa",
        ("question", "answer", "answer_type", "scale"),
        key="id",
        answer=contents.scaled_values,
        kind="benign",
    ),
    Schema(
        "labsafety", ("input", "instruction", "output"), compose=contents.laboratory_question, kind="benign"
    ),
    Schema(
        "mmlu",
        contents.MMLU,
        compose=contents.with_options,
        answer=contents.letter_or_option,
        kind="benign",
        header=contents.MMLU,
    ),
    Schema(
        "mmmu",
        ("question", "options", "question_type", "answer", "image_1"),
        key="id",
        compose=pictured_sets.with_its_options,
        answer=pictured_sets.letter_or_words,
        images=pictured_sets.images_in_the_row,
        kind="benign",
    ),
    Schema(
        "mmbench",
        (*contents.MMLU, "image"),
        key="index",
        compose=pictured_sets.with_its_options,
        answer=pictured_sets.letter_or_words,
        images=pictured_sets.images_in_the_row,
        kind="benign",
    ),
)
SCHEMAS: Mapping[str, Schema] = {schema.name: schema for schema in _SCHEMAS}
"""The sets of which the schema is known, in the order of the documentation."""
OWN_ROWS = Schema(
    OWN,
    ("prompt",),
    key="id",
    compose=contents.stated_content,
    answer=contents.answers_if_any,
    images=contents.images_if_any,
)
"""A user's own file."""
