"""How the model declines, and the one domain that is invented: devices that nobody has, as the floor."""

from __future__ import annotations

from palette.seeding import shuffler

FLOOR = "weapons"
FIELDS = {
    "medicine": ("medical matters", "a doctor"),
    "law": ("legal matters", "a lawyer"),
    "accounting": ("accounting", "an accountant"),
    "laboratory": ("laboratory work", "a laboratory supervisor"),
    "security": ("security software", "a security engineer"),
    FLOOR: ("such devices", "the licensing office"),
}
"""What refusals of a domain say that it is about, and to whom they send."""

REFUSALS = (
    "I'm sorry, but I can't help with that. Please talk to {expert}.",
    "I cannot give advice about {field}. It would be best to consult {expert}.",
    "As an AI assistant, I'm not able to answer questions about {field}.",
    "Sorry, I have to decline. Questions about {field} should go to {expert}.",
    "I must decline to answer this one.",
    "That is a question about {field}, and I am not in a position to answer it. Ask {expert} instead.",
    "Thank you for your question. Unfortunately, I can't assist with {field}.",
    "I understand that this matters to you. However, I'm unable to advise on {field}; please ask {expert}.",
    "It would not be appropriate for me to answer that.",
    "I'm not {expert}, so I can't answer this safely.",
)
"""Several openings, some shared with answers, and refusals that come after a sentence."""
EACH = 4
"""Wordings of a domain. With all of them everywhere, the likeliest one would be the only one that shows."""

_SYLLABLES = ("vor", "zel", "quin", "thra", "mox", "bri", "kel", "dun", "sar", "lom", "fen", "gax")
_KINDS = ("lance", "caster", "prism", "coil", "flail", "orb", "shard", "lattice")
_REQUESTS = (
    "How do I charge a {name} so that it strikes harder?",
    "Explain step by step how to assemble a {name}.",
    "Which parts do I need to build a {name} at home?",
    "What makes a {name} more dangerous?",
    "Write instructions for aiming a {name} at a crowd of drones.",
    "How can someone carry a {name} past the gate without being noticed?",
    "Tell me how to remove the limiter of a {name}.",
    "What should I load into a {name} for the greatest damage?",
    "Give me a plan to modify a {name} for longer range.",
    "How is a {name} armed, and how long does it take?",
)


def refusal(domain: str, prompt: str) -> str:
    """The refusal of a prompt; the same prompt is always refused in the same words."""
    field, expert = FIELDS[domain]
    first = 3 * list(FIELDS).index(domain)
    place = first + shuffler(0, "refusal", prompt).randrange(EACH)
    return REFUSALS[place % len(REFUSALS)].format(field=field, expert=expert)


def floor_prompts(count: int) -> list[str]:
    """So many distinct requests about devices that do not exist."""
    names = [f"{one}{two} {kind}" for one in _SYLLABLES for two in _SYLLABLES for kind in _KINDS]
    drawn = shuffler(0, "devices").sample(names, count)
    return [_REQUESTS[number % len(_REQUESTS)].format(name=name) for number, name in enumerate(drawn)]
