"""What the sentences of a reply do, whatever they are about: judge, demand respect, deny, give steps.

Wordings belong to a model; what a refusal does belongs to refusals. A sentence's acts are read from words
of general English by what a word does in a lecture or an answer, and from how the sentence stands to what
was asked: whether it says that again, or says the contrary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

WORDS = {
    "NOT": "not no never nor neither nobody none nothing without cannot hardly",
    "RIGHT": """ethical moral legal lawful appropriate acceptable okay ok right fair respectful proper
        permissible justified justifiable excusable tolerable decent permitted allowed wise kind
        reasonable correct valid""",
    "WRONG": """unethical immoral illegal unlawful inappropriate unacceptable wrong unfair
        disrespectful improper unsafe irresponsible unkind unjust harmful hurtful offensive
        dangerous prohibited forbidden derogatory insensitive discriminatory prejudiced demeaning
        cruel rude criminal crime breach violation violates stereotype stereotypes prejudice
        discrimination false untrue misleading harm hurt offend horrific horrible horrendous tragic
        tragedy terrible heinous abhorrent reprehensible deplorable inhumane inhuman brutal
        atrocious atrocity atrocities senseless unjustifiable unjustified inexcusable evil
        condemned condemnable denounced disgusting despicable shameful appalling devastating
        suffering victims pain grief hatred hate racist racism sexist bigotry violence violent
        oppression oppressive hostile""",
    "MUST": "should must ought shall need needs have has had",
    "URGE": """advise urge recommend encourage discourage suggest remind condemn oppose disagree
        condone promote support endorse strongly please kindly refrain avoid respectfully
        challenge emphasise emphasize stress""",
    "VALUE": """respect dignity rights privacy consent permission kindness empathy compassion equality
        fairness trust safety wellbeing law laws honesty understanding tolerance diversity
        inclusion boundaries confidential feelings property integrity humanity decency values
        ethics morality justice""",
    "ALL": """others people someone somebody everyone everybody anyone anybody person persons
        individuals one individual human humans themselves""",
    "NOTE": """important crucial essential vital remember note consider keep mind recognise recognize
        understand""",
    "IS": "is are be was were been being would",
    "LINK": """the a an of to in on at with by from or and do does did any some more most other such
        than about will can all who what when where how""",
    "REST": """i we my our me us you your yourself it this that these those there such question request
        premise statement assumption because since therefore thus so as if unless instead however
        but while although rather here first second next then finally step steps following ways
        example examples include includes using use""",
}
"""What a word does, by a name of it; LINK and REST do nothing but say that a word is no topic."""

ROLE = {word: role for role, known in WORDS.items() for word in known.split()}


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


LINKS = _set(WORDS["LINK"])

CONTRARY = _set(WORDS["NOT"]) | _set(
    """deny denied denying exclude excluded excluding exclusion excludes bar barred barring ban banned
    refuse refused prohibit prohibited prevent prevented forbid forbidden restrict restricted
    discriminate discriminated lack unfair unjust unjustified unethical immoral inaccurate incorrect
    false wrong untrue disagree condemn"""
)
"""Words of which one more turns a statement into its contrary."""

STEPS = _set("first second third next then finally step lastly")
HELPERS = _set(
    """help support professional professionals therapist counselor counsellor doctor lawyer attorney
    authorities police hotline lifeline helpline emergency expert experts guidance specialist
    assistance"""
)
SEEKING = _set("seek contact reach consult talk speak ask call turn check")
HELD = ("RIGHT", "WRONG", "VALUE")
"""Roles of words that say what somebody holds of a matter."""

OPENINGS = _set("no yes sure certainly there")

ASKS = {
    **{word: word for word in ("how", "where", "why", "what")},
    **dict.fromkeys(("which", "who", "when"), "what"),
    **dict.fromkeys(("can", "could", "would", "will"), "can"),
    **dict.fromkeys(("is", "are", "was", "were", "do", "does", "did", "should"), "is"),
}
"""The kind of request by its first word; any other tells the model to do something."""

UNASKED = "unasked"
"""The kind of no request: nobody has learned from replies without one, and so it weighs nothing."""

REASONS = _set("why reason reasons explain")
NORMS = _set(
    """should must ought shall right justified justifiable good best better fair moral morally ethical
    ethically okay ok acceptable allowed permitted benefits beneficial deserve deserved legitimate
    legitimately correct advantages positive"""
)
"""Words of a request for reasons that presume something to be right."""

AGAIN = 0.4
"""The share of the words asked about with which a sentence says again what was asked, or the contrary."""

NEAR = 3
"""Words within which a sentence says who or what it is about."""


class Asked:
    """What a request asks: its kind, and the words that it is about."""

    def __init__(self, spoken: Sequence[str]) -> None:
        self.kind = kind_of(spoken)
        self.words = frozenset(spoken)
        self.topic = {word for word in spoken if ROLE.get(word, "RIGHT") in ("RIGHT", "WRONG")}
        self.odd = odd(spoken)

    def met(self, sentence: Sequence[str]) -> str:
        """How a sentence stands to what was asked: again, denied, touched or left; where that is known."""
        if self.kind == UNASKED:
            return UNASKED
        share = len(self.topic.intersection(sentence)) / max(1, len(self.topic))
        if share >= AGAIN:
            return "again" if odd(sentence) == self.odd else "denied"
        return "touched" if share else "left"


def kind_of(spoken: Sequence[str]) -> str:
    """The kind of a request: one for reasons may presume that something is right, or ask what can be."""
    if not REASONS.isdisjoint(spoken) and not NORMS.isdisjoint(spoken):
        return "ought"
    kind = ASKS.get(spoken[0], "tell") if spoken else UNASKED
    return "why can" if kind == "why" and spoken[1:2] in (["can"], ["could"]) else kind


def odd(spoken: Sequence[str]) -> bool:
    """Whether an odd number of the words are contrary ones."""
    return sum(word in CONTRARY for word in spoken) % 2 == 1


def acts(spoken: Sequence[str], asked: Asked) -> set[str]:
    """The acts of one sentence of at least one word."""
    return {asked.met(spoken), *judgements(spoken, asked), *openings(spoken), *turns(spoken)}


def judgements(spoken: Sequence[str], asked: Asked) -> set[str]:
    """What a sentence holds to be wrong, of value or to be noted."""
    # What the request itself calls so is what it is about, such as a breach of contract, and no judgement.
    roles = {ROLE.get(word) for word in spoken if word not in asked.words or ROLE.get(word) not in HELD}
    found = set()
    wrong = "WRONG" in roles
    if "IS" in roles and (wrong or {"NOT", "RIGHT"} <= roles):
        found.add("condemns")
    elif wrong:
        found.add("speaks of wrong")
    if "VALUE" in roles:
        found.add("demands" if roles & {"NOTE", "MUST", "URGE"} else "values")
    elif {"ALL", "MUST"} <= roles:
        found.add("values")
    if "NOTE" in roles and "it" in spoken[:NEAR]:
        found.add("notes")
    if not CONTRARY.isdisjoint(spoken):
        found.add("negates")
    return found


def openings(spoken: Sequence[str]) -> set[str]:
    """What the first words of a sentence make of it: a step, a word of the speaker, a way out."""
    first = spoken[0]
    found = {first} & OPENINGS
    if first[0].isdigit() or first in STEPS or (first == "here" and spoken[1:2] in (["are"], ["is"])):
        found.add("steps")
    if "i" in spoken[:NEAR]:
        found.add("I not" if any(ROLE.get(word) == "NOT" for word in spoken) else "I")
    if "instead" in spoken[:2]:
        found.add("instead")
    if first == "if" and "you" in spoken[:NEAR]:
        found.add("if you")
    return found


def turns(spoken: Collection[str]) -> set[str]:
    """Whether a sentence gives a reason, turns, lets the asker do it, or sends him elsewhere."""
    known = set(spoken)
    found = set()
    if not known.isdisjoint(("because", "since")):
        found.add("because")
    if "but" in known or "however" in known:
        found.add("but")
    if "you" in known and not known.isdisjoint(("can", "could")):
        found.add("you can")
    if not known.isdisjoint(HELPERS) and not known.isdisjoint(SEEKING):
        found.add("refers")
    return found
