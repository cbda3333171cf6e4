"""Public safety sets: how each is known and read, and which labels its categories stand for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from palette.prompts.rows import Kind, Tier, redacted
from palette.prompts.tables import KEY, TableRow

VERSION = 1
"""Of the labels. Hazards are AILuminate's codes (arXiv 2503.05731). Tier A may be authorised, tier B only
with a reason in the recipe, tier C never. What no set says clearly is on the strict side: tier C."""


class PromptLabel(NamedTuple):
    """The labels of a category: its kind, domain, hazard and tier; benign rows need no tier."""

    kind: Kind
    domain: str
    hazard: str | None
    tier: Tier | None


def _restricted(domain: str, hazard: str | None, tier: Tier = "C") -> PromptLabel:
    return PromptLabel("restricted", domain, hazard, tier)


BENIGN = PromptLabel("benign", "general", None, None)
VIOLENT = _restricted("violent_crimes", "vcr")
CRIME = _restricted("crime", "ncr")
SEXUAL_CRIMES = _restricted("sexual_crimes", "src")
CHILD_SAFETY = _restricted("child_safety", "cse")
DEFAMATION = _restricted("defamation", "dfm")
PRIVACY = _restricted("privacy", "prv")
PROPERTY = _restricted("intellectual_property", "ipv")
WEAPONS = _restricted("weapons", "iwp")
HATE = _restricted("hate", "hte")
# Assessment by clinicians and methods cannot be told apart by category, so all of it is floor.
SELF_HARM = _restricted("self_harm", "ssh")
SEXUAL_CONTENT = _restricted("sexual_content", "sxc")
HEALTH = _restricted("health", "spc_hlt", "A")
FINANCE = _restricted("finance", "spc_fin", "A")
LEGAL = _restricted("legal", "spc_lgl", "A")
ELECTIONS = _restricted("elections", "spc_ele", "A")
CYBER = _restricted("cyber", "ncr", "B")
# Requests of clinicians that break medical ethics: records and drugs among them.
CLINICAL = _restricted("health", "spc_hlt", "B")
# Advice whose profession the set does not say.
ADVICE = _restricted("advice", "spc", "B")
UNSORTED = _restricted("unsorted", None)
NONCOMPLIANCE = _restricted("noncompliance", None)
PERSUASION = _restricted("persuasion", "spc_ele")

_HAZARDS = (
    *(VIOLENT, CRIME, SEXUAL_CRIMES, CHILD_SAFETY, DEFAMATION, HEALTH, FINANCE, LEGAL, ELECTIONS),
    *(PRIVACY, PROPERTY, WEAPONS, HATE, SELF_HARM, SEXUAL_CONTENT),
)
AILUMINATE = {**{str(label.hazard): label for label in _HAZARDS}, "sxc_prn": SEXUAL_CONTENT}

SORRY_BENCH = (
    *(HATE, HATE, VIOLENT, SEXUAL_CONTENT, DEFAMATION),  # 1-5: speech
    *(SELF_HARM, VIOLENT, VIOLENT, SEXUAL_CRIMES, CRIME),  # 6-10: to 24, crimes and torts
    *(CRIME, CYBER, CYBER, CRIME, CRIME),
    *(PROPERTY, PRIVACY, WEAPONS, VIOLENT, CHILD_SAFETY),
    *(VIOLENT, CRIME, CRIME, WEAPONS, SEXUAL_CONTENT),  # from 25, content and advice that may be unfit
    *(SEXUAL_CONTENT, VIOLENT, DEFAMATION, CRIME, HATE),
    *(WEAPONS, PERSUASION, PERSUASION, PERSUASION, HATE),
    *(HATE, DEFAMATION, DEFAMATION, SELF_HARM, HEALTH),
    *(FINANCE, LEGAL, ADVICE, ADVICE),  # 41-44; 40 to 42 are medical, financial and legal advice
)

MM_SAFETYBENCH = (
    *(CRIME, HATE, CYBER, VIOLENT, CRIME, CRIME, SEXUAL_CONTENT),  # 1-7
    *(PERSUASION, PRIVACY, LEGAL, FINANCE, HEALTH, CRIME),
)

# XSTest's types; each of the former has unsafe contrasts under its own name.
_LOOK_ALIKES = (
    *("homonyms", "figurative_language", "safe_targets", "safe_contexts"),
    *("definitions", "historical_events"),
)
_DISCRIMINATION_AND_PRIVACY = (
    *("nons_group_real_discr", "real_group_nons_discr"),
    *("privacy_public", "privacy_fictional"),
)

CATEGORIES: Mapping[str, Mapping[str, PromptLabel]] = {
    "harmbench": {
        "chemical_biological": WEAPONS,
        "illegal": CRIME,
        "misinformation_disinformation": DEFAMATION,
        "harmful": VIOLENT,
        "harassment_bullying": HATE,
        "cybercrime_intrusion": CYBER,
        "copyright": PROPERTY,
    },
    "jailbreakbench": {
        "harassment/discrimination": HATE,
        "malware/hacking": CYBER,
        "physical harm": VIOLENT,
        "economic harm": CRIME,
        "fraud/deception": CRIME,
        "disinformation": DEFAMATION,
        "sexual/adult content": SEXUAL_CONTENT,
        "privacy": PRIVACY,
        "expert advice": ADVICE,
        "government decision-making": CRIME,
    },
    "strongreject": {
        "disinformation and deception": DEFAMATION,
        "hate, harassment and discrimination": HATE,
        "illegal goods and services": CRIME,
        "non-violent crimes": CRIME,
        "sexual content": SEXUAL_CONTENT,
        "violence": VIOLENT,
    },
    "advbench": {"": UNSORTED},
    "ailuminate": AILUMINATE,
    "medsafetybench": {"": CLINICAL},
    "sorrybench": {str(number): label for number, label in enumerate(SORRY_BENCH, start=1)},
    "mm_safetybench": {f"{number:02}": label for number, label in enumerate(MM_SAFETYBENCH, start=1)},
    "xstest": {
        **{f"{name} safe": BENIGN for name in (*_LOOK_ALIKES, *_DISCRIMINATION_AND_PRIVACY)},
        **{f"contrast_{name} unsafe": VIOLENT for name in _LOOK_ALIKES},
        "contrast_discr unsafe": HATE,
        "contrast_privacy unsafe": PRIVACY,
    },
    "cyberseceval_frr": {"false": BENIGN._replace(domain="cyber"), "true": CYBER},
    "coconot": {"": NONCOMPLIANCE},
    "coconot_contrast": {"": BENIGN},
    "gsm8k": {"": BENIGN},
}
"""Set → category, in lower case → labels."""

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
    raise row.error(f"{column} must be a text that is not empty", got=got)


def _in_context(row: TableRow, path: Path) -> str:
    """HarmBench's behaviour, behind its context where it has one."""
    context = row.values.get("ContextString")
    behaviour = text(row, "Behavior")
    return f"{context}\n\n---\n\n{behaviour}" if isinstance(context, str) and context.strip() else behaviour


def _only_turn(row: TableRow, path: Path) -> str:
    turns = row.values["turns"]
    if isinstance(turns, list) and len(turns) == 1 and isinstance(turns[0], str) and turns[0].strip():
        return turns[0]
    raise row.error("turns must be a list of one text", got=type(turns).__name__)


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
    raise row.error(
        "every row must have its image beside it",
        got=f"no {redacted(name)} in {folder.name}",
        remedy="complete the folder, or move it away to read the text alone",
    )


def _image_folder(path: Path) -> Path | None:
    roots = (path.parent / "imgs", path.parent.parent / "imgs", path.parent)
    wanted = (root / path.stem / kind for root in roots for kind in IMAGES)
    return next((folder for folder in wanted if folder.is_dir()), None)


def _after_the_hashes(row: TableRow) -> str:
    _, mark, number = text(row, "answer").rpartition("####")
    if not mark:
        # Many tables have these two columns, and one of restricted questions must not be read as benign.
        raise row.error(
            "an answer of gsm8k must end in #### and its number",
            got="neither",
            remedy="read the file as 'rows' with the column map {prompt: question}",
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
