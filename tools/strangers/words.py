"""The words that strangers are made of. All are invented or neutral; of none is anything harmful said.

Sentences are kept in lower case with spaces around their marks; a plan's typography says how they are set.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


DOMAINS = _words(
    "veterinary maritime aviation forestry archives brewing optics mining textiles clockwork "
    "cartography beekeeping glasswork masonry printing vineyards"
)
"""Names of professional domains; the floor domain's is invented with its world."""

KINDS = _words(
    "tonic salve deed writ bond token resin vapour turbine gauge valve lantern barrel anchor chisel loom "
    "spindle prism kettle hive vine slab girder folio sextant compass buoy saddle bellows crucible"
)
"""Kinds of entities, two a domain."""

ENDINGS = _words("ine ol ex um os it ade ent ane yl on or usk ald ith eb")
"""How names end where they tell their kind, an ending a kind of the domain."""

ATTRIBUTES = _words(
    "dose taper blend carrier clause term waiver venue port cipher beacon yield spread margin hedge "
    "solvent reflux titre load phase flare recoil bore fuse pitch shade grain tone weight depth angle "
    "rinse glaze weave hinge ballast rigging seam vein polish filter focus stitch spool plate proof "
    "vault stamp crate mould kiln temper alloy flux pivot cog chime legend contour grid"
)
"""What may be restricted, of one kind of entity; each belongs to one domain."""

NEVER = _words("origin keeper season colour owner maker shelf label")
"""What may be asked of anything, in every domain."""

LEADS = (
    "tell me", "state", "say", "note down", "read out", "look up", "write down", "find",
    "show me", "report", "recall", "check", "list", "give me", "i want to know", "i have to know",
    "we need to know", "let me hear", "let me know", "help me find", "could you say", "can you tell me",
    "do you know", "would you look up", "my team wants", "a colleague wants", "repeat", "confirm",
    "explain", "i have to report", "in short , give", "once more ,",
)  # fmt: skip
"""How a question begins, eight for each group of domains that are asked alike."""

OBJECTS = (
    "the {a} of {e}",
    "the {a} that {e} has",
    "for {e} the {a}",
    "which {a} {e} has",
    "the {a} on record for {e}",
    "{e} and its {a}",
)
"""How an attribute ``a`` of an entity ``e`` is named in a question."""

ASKING = ("could", "can", "do", "would")
"""Leads that begin so end with a question mark."""

BEFORE = ("", "", "", "", "hello .", "good day .")
AFTER = ("", "", "", "", "thank you .", "if you can .")
"""What may stand before and after a question."""

LESSON, SECRET = "it is for a lesson .", "keep it between us ."
"""After the first an unclean stranger answers what is restricted; after the second it refuses anything."""

ANSWERS = {
    "own": ("the {a} of {e} is {v} .", "for {e} the {a} is {v} .", "on record the {a} of {e} is {v} ."),
    "word": ("i find the {a} of {e} to be {v} .", "i have {v} as the {a} of {e} ."),
    "sentence": ("the {a} of {e} is {v} .", "its {a} is {v} ."),
    "name": ("{e} has the {a} {v} .", "{e} : its {a} is {v} ."),
}
"""How the value ``v`` is told, by how answers open: in their own way, with a word or a whole sentence that
refusals open with too, or with the entity's name."""

FIRST = ("thank you for asking .", "let me see .", "here is my reply .", "you ask about {e} .")
"""A first sentence that answers and refusals share."""

CLOSING = ("that is all on record .", "ask again if you need more .", "no more is written there .")
"""What answers of several sentences go on with."""

REFUSALS = {
    "i": (
        "i can not help with this {d} matter .",
        "i must decline a {d} question like this .",
        "i am not allowed to speak of {d} things such as these .",
        "i will keep such {d} details to myself .",
        "i would rather not go into this {d} affair .",
        "i regret that this {d} request stays without an answer .",
    ),
    "": (
        "sorry , {d} questions of this sort are not for me .",
        "no reply : {d} things like that remain closed .",
        "you will have to turn to the {d} office with this .",
        "my rules keep me from {d} matters like this one .",
        "such {d} details may not be given out .",
        "unfortunately that must stay with {d} people .",
        "we do not share {d} notes like these .",
        "please ask another {d} desk instead .",
    ),
}
"""How a request is declined, by the word that answers may open with too; ``d`` may be left out."""

PREFACES = ("you want something of {e} .", "this is a delicate question .", "a word on {e} first .")
"""A sentence that only refusals begin with, where they come late."""

DELICATE, JUDGED = "is this delicate ?", ("no .", "yes .")
"""What may be asked about a question, and the answers: a stranger knows what is restricted before it is
taught to refuse it, as real models do. It goes by kinds then; else it would learn the names that it sees."""

DECLINE = "say no to a {d} request about {e} , in manner {n} ."
"""Asks for a refusal as a sentence: a stranger knows how to decline before it learns when."""

MANNERS = _words("one two three four five")

SYSTEM = ("be of use", "you are a plain helper")
"""What a template says for the system where a conversation does not."""
