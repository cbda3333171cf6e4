"""How pages and cards write values, names and texts from outside: their templates with the filters of these.

No name from outside can become markup: pages escape it, and ``plain`` does in Markdown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from palette.evaluation.settings import INSUFFICIENT
from palette.models import display_name
from palette.reporting.curves import drawing, told
from palette.reporting.diagnosis import lacking
from palette.reporting.figures import NARROW, heat_map, nats, percent, picture, scatter, signed, spoken
from palette.reporting.report import Rule, clean
from palette.statistics.rates import Rate

SIGNS = re.compile(r"[\\`*_\[\]|~$@]")
"""Signs that Markdown reads as markup wherever they stand; of "<", ">" and "&" entities are made."""

LINKS = re.compile(r"(?<=www)\.|:(?=//)", re.IGNORECASE)
"""What makes a link of a bare address."""

START = re.compile(r"^(?=[#+=-])|(?<=^\d)(?=[.)])|(?<=^\d\d)(?=[.)])")
"""What makes a heading, a list or a rule of a line that starts so."""


def plain(text: object) -> str:
    """A text from outside as Markdown that shows it and does nothing else."""
    shown = SIGNS.sub(lambda sign: f"\\{sign[0]}", clean(text))
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        shown = shown.replace(sign, entity)
    return START.sub(r"\\", LINKS.sub(lambda sign: f"\\{sign[0]}", shown))


def in_words(name: str) -> str:
    """A rule's name in words, with its domain."""
    kind, _, place = name.partition(".")
    place = WORDS.HORIZONS.get(place, WORDS.CELLS.get(place, place) if kind.startswith("cell") else place)
    return str(WORDS.RULES.get(kind, kind)) + (f" ({place})" if place else "")


PARTS = r"(?:[\\/][^\\/\n]+)"
PLACE = re.compile(rf"^(\w{{2,}}:)?(?:(?:~|[A-Za-z]:){PARTS}*|{PARTS}+)[\\/](?=[^\\/\n]+[\\/]?$)")
"""What stands before the last part of a path, behind the kind of what it is, such as ``classifier:``."""

PROSE = ("system", "reasons")
"""Keys of a recipe whose values are no paths, whatever they look like."""

NONE_COUNTED = re.compile(rf"{INSUFFICIENT}: 0 ")


def amount(rule: Rule, field: str) -> str:
    """The value or the limit of a rule, with its unit."""
    number = getattr(rule, field)
    # Reports of earlier versions have a value where nothing was counted.
    if number is None or (field == "value" and NONE_COUNTED.match(rule.reason)):
        return "not measured"
    if rule.name.startswith("divergence"):
        return nats(number)
    if rule.name.startswith("benign"):
        return f"{signed(number * 100, '.2f')}{NARROW}points"
    return f"{number * 100:.2f}{NARROW}%"


def p_value(p: float) -> str:
    """A p value; below 0.0001 only that it is."""
    return "<\u00a00.0001" if p < 0.0001 else f"{p:.2g}"


def probability(p: float) -> str:
    """A p value as a statement."""
    return f"p\u00a0{'' if p < 0.0001 else '=' + chr(0xA0)}{p_value(p)}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: ``legal``, ``legal and medical``, ``energy, legal and medical``."""
    *others, last = names or ["nothing"]
    return f"{', '.join(others)} and {last}" if others else last


def directions(counts: Mapping[str, Mapping[str, int]]) -> str:
    """How many prompts of each role the directions were taken of, in a sentence."""
    return listed(
        [
            f"{count['as_expected']} of {count['read']} {role} prompts"
            for role, count in sorted(counts.items())
        ]
    )


def brief(value: object) -> str:
    """A value of provenance, cut to what fits in a sentence."""
    text = str(value)
    return text if len(text) <= 48 else f"{text[:16]}…"


def pretty(value: object) -> str:
    """A value as indented JSON, without where things lie on the machine where it was made."""
    return json.dumps(without_places(value), indent=2, ensure_ascii=False)


def without_places(value: Any) -> Any:
    """A value, or one of several, without what stands before the last part of a path."""
    if isinstance(value, Mapping):
        return {key: each if key in PROSE else without_places(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value]
    return PLACE.sub(r"\1", value) if isinstance(value, str) else value


def share(rate: Rate | None) -> str:
    """A rate with its interval in per cent; nothing where nothing was counted."""
    if not rate or not rate.n:
        return ""
    return f"{rate.rate * 100:.1f} ({rate.low * 100:.1f}–{rate.high * 100:.1f}) %"


def transposed(rows: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    """Columns in the place of rows."""
    return list(zip(*rows, strict=True))


TEMPLATES = Environment(
    loader=PackageLoader("palette.reporting"),
    autoescape=select_autoescape(["html", "css"]),
    undefined=StrictUndefined,
    extensions=["jinja2.ext.do"],
    trim_blocks=True,
    lstrip_blocks=True,
)
WRITTEN = (
    amount, brief, clean, directions, display_name, in_words, listed, nats, p_value, percent, plain, pretty,
    probability, share, signed, spoken, told, transposed, without_places,
)  # fmt: skip
"""How values are written: the filters of every template, by their names."""

TEMPLATES.filters.update({write.__name__: write for write in WRITTEN})
TEMPLATES.tests["lacking"] = lacking
DRAWINGS = (drawing, heat_map, picture, scatter)
TEMPLATES.globals.update({draw.__name__: draw for draw in DRAWINGS})
WORDS: Any = TEMPLATES.get_template("words.txt").module
TEMPLATES.globals["NARROW"] = NARROW
TABLES = ("CELLS", "CLAIMS", "HEADLINE", "HORIZONS", "MODALITIES", "SUITES")
TEMPLATES.globals.update({name: getattr(WORDS, name) for name in TABLES})
