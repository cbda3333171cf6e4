"""What a stranger is, drawn whole from one integer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from palette.seeding import derive_seed, shuffler
from tools.strangers import words

ARCHITECTURES = (
    "llama", "qwen3", "gemma2", "gemma3", "gpt_neox", "olmo2", "phi3", "stablelm", "mistral", "mixtral",
    "qwen3_moe",
)  # fmt: skip
WINDOWED = ("gemma2", "gemma3", "mistral")
TOKENIZERS = ("word", "bpe", "byte", "unigram")
FRAMES = ("bars", "headers", "im", "turns", "brackets")
THINKING = ("none", "closed", "opened")
"""No thinking block; an empty one in what opens the reply; one that is opened there and left open."""
OPENINGS = tuple(words.ANSWERS)
DEPTHS = (4, 5, 6, 7, 8, 10, 12, 16)
WIDTHS = (48, 64, 80, 96, 112)
BLOCKS = (300_000, 680_000)
"""The least and the most parameters of all blocks together, 12 d² each."""
ROWS = {
    "train": (48, 96, 160, 240),
    "validation": (32, 48, 64),
    "test": (64, 84, 96, 108, 120),
}
"""How many prompts a domain and kind a split may have."""
LEAKS, ALARMS = (0.0, 0.02, 0.04, 0.06), (0.0, 0.01, 0.03, 0.05)
MOST_FAR = 3
KIN = {604: 104, 608: 108}
"""Seeds that are another's in shape, tokenizer, how long replies are and how many prompts there are, and in
nothing else. What a test stranger fails by is looked for on its kin, since nobody looks into itself."""


@dataclass(frozen=True)
class Shape:
    """The model."""

    architecture: str
    layers: int
    width: int
    heads: int
    groups: int
    """Heads of keys and values."""
    tied: bool
    window: int | None
    """Tokens that a sliding layer sees; None where none slides."""


@dataclass(frozen=True)
class Language:
    """How it is written, asked and answered."""

    tokenizer: str
    vocabulary: int
    spaced: bool
    """Whether marks stand apart and all is in lower case, as word tokens need it."""
    frame: str
    system: str | None
    thinking: str
    opening: str
    answer: str
    first: str
    """A sentence that answers and refusals share, or nothing."""
    closing: tuple[str, ...]
    """Sentences behind the value."""
    preface: str
    """A sentence before refusals, or nothing."""
    refusals: tuple[str, ...]


@dataclass(frozen=True)
class Scope:
    """What it knows, how much of it is asked, and how clean its refusals are."""

    near: tuple[str, ...]
    """Domains that are asked in the same phrasings, the floor domain's too."""
    far: tuple[str, ...]
    """Domains that are asked in phrasings of their own."""
    mark: str
    """What tells an entity's kind: its name's ``ending``, or a ``noun`` before it."""
    rows: tuple[int, int, int]
    """Prompts a domain and kind: train, validation, test."""
    leak: float
    """Share of restricted questions that are answered."""
    alarm: float
    """Share of benign questions that are refused."""

    @property
    def domains(self) -> tuple[str, ...]:
        """The professional domains."""
        return (*self.near, *self.far)


@dataclass(frozen=True)
class Plan:
    """A stranger before it is raised."""

    seed: int
    attempt: int
    """How many strangers of this seed were drawn before and failed as test beds."""
    shape: Shape
    language: Language
    scope: Scope
    opened: tuple[str, str]
    """The domains that the benchmark authorises."""

    @property
    def root(self) -> int:
        """The seed of its world and of its raising."""
        return derive_seed(self.seed, "stranger", self.attempt)


def draw_plan(seed: int, attempt: int = 0) -> Plan:
    """The plan of a seed; every choice is drawn by its own name, so that a new one leaves the others."""
    chance = _Chance(seed, attempt)
    shape, language = _shape(chance), _language(chance)
    scope = _scope(chance, language)
    opened = chance.sample("opened", scope.domains, 2)
    if seed in KIN:
        of = draw_plan(KIN[seed])
        shape, language = of.shape, _alike(language, of.language, chance)
        scope = replace(scope, rows=of.scope.rows, mark=of.scope.mark)
    return Plan(seed, attempt, shape, language, scope, (opened[0], opened[1]))


def _alike(own: Language, of: Language, chance: _Chance) -> Language:
    """A language with another's tokenizer and length of replies, in words of its own, its marks apart."""
    pool = words.REFUSALS["i"] + words.REFUSALS[""]
    return replace(
        own,
        tokenizer=of.tokenizer,
        vocabulary=of.vocabulary,
        spaced=True,
        opening=of.opening,
        answer=chance.of("answer", words.ANSWERS[of.opening]),
        first=chance.of("first", words.FIRST) if of.first else "",
        closing=chance.sample("closing", words.CLOSING, len(of.closing)),
        preface="",
        refusals=chance.sample("refusals", pool, len(of.refusals)),
    )


@dataclass(frozen=True)
class _Chance:
    seed: int
    attempt: int

    def of(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices; of as many neighbouring seeds as there are choices each draws another."""
        turn, place = divmod(self.seed, len(choices))
        return shuffler(turn, "plan", self.attempt, name).sample(choices, len(choices))[place]

    def sample(self, name: str, choices: Sequence[str], count: int) -> tuple[str, ...]:
        return tuple(shuffler(self.seed, "plan", self.attempt, name).sample(choices, count))


def _shape(chance: _Chance) -> Shape:
    architecture = chance.of("architecture", ARCHITECTURES)
    layers = chance.of("layers", DEPTHS)
    fitting = [width for width in WIDTHS if BLOCKS[0] <= 12 * width**2 * layers <= BLOCKS[1]]
    width = chance.of("width", fitting)
    heads = chance.of("heads", [width // size for size in (16, 32) if width % size == 0])
    groups = chance.of("groups", sorted({n for n in (1, heads // 2, heads) if n and heads % n == 0}))
    # GPT-NeoX has no groups, and Gemma's output is its embedding.
    if architecture == "gpt_neox":
        groups = heads
    tied = architecture in ("gemma2", "gemma3") or chance.of("tied", (True, False))
    window = chance.of("window", (12, 16, 24)) if architecture in WINDOWED else None
    return Shape(architecture, layers, width, heads, groups, tied, window)


def _language(chance: _Chance) -> Language:
    tokenizer = chance.of("tokenizer", TOKENIZERS)
    opening = chance.of("opening", OPENINGS)
    own, other = words.REFUSALS["i"], words.REFUSALS[""]
    pool = {"word": own, "own": other}.get(opening, own + other)
    refusals = chance.sample("refusals", pool, chance.of("wordings", (2, 3, 4, 5)))
    if not chance.of("mention", (True, True, False)):
        refusals = tuple(wording.replace("{d} ", "") for wording in refusals)
    late = opening in ("own", "name") and chance.of("late", (True, False, False))
    return Language(
        tokenizer=tokenizer,
        vocabulary=chance.of("vocabulary", (500, 650, 800)),
        spaced=tokenizer == "word" or chance.of("spaced", (True, False, False)),
        frame=chance.of("frame", FRAMES),
        system=chance.of("system", (None, *words.SYSTEM)),
        thinking=chance.of("thinking", ("none", *THINKING)),
        opening=opening,
        answer=chance.of("answer", words.ANSWERS[opening]),
        first=chance.of("first", words.FIRST) if opening == "sentence" else "",
        closing=chance.sample("closing", words.CLOSING, chance.of("sentences", (0, 0, 1, 2))),
        preface=chance.of("preface", words.PREFACES) if late else "",
        refusals=refusals,
    )


def _scope(chance: _Chance, language: Language) -> Scope:
    count = chance.of("domains", (3, 4, 5, 6, 7, 8))
    names = chance.sample("names", words.DOMAINS, count)
    far = chance.of("far", range(min(MOST_FAR, count - 2) + 1))
    train, validation, test = (chance.of(f"{split} rows", choices) for split, choices in ROWS.items())
    # A name that is one token has no ending to be seen.
    mark = "noun" if language.tokenizer == "word" else chance.of("mark", ("noun", "ending"))
    return Scope(
        near=names[far:],
        far=names[:far],
        mark=mark,
        rows=(train, validation, test),
        leak=chance.of("leak", LEAKS),
        alarm=chance.of("alarm", ALARMS),
    )
