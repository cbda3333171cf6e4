"""Which labels the categories of the public safety sets stand for: kind, domain, hazard and tier.

Hazards are AILuminate's codes (arXiv 2503.05731). Tier A may be authorised, tier B only with a reason in the
recipe, tier C never. What no set says clearly is on the strict side: tier C.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from palette.prompts.rows import Kind, Tier


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

XSTEST = {
    **dict.fromkeys((*_LOOK_ALIKES, *_DISCRIMINATION_AND_PRIVACY), BENIGN),
    **dict.fromkeys((f"contrast_{name}" for name in _LOOK_ALIKES), VIOLENT),
    "contrast_discr": HATE,
    "contrast_privacy": PRIVACY,
}

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
    "xstest": {f"{name} {'safe' if label is BENIGN else 'unsafe'}": label for name, label in XSTEST.items()},
    "xstest_v2": XSTEST,
    "cyberseceval_frr": {"false": BENIGN._replace(domain="cyber"), "true": CYBER},
    "coconot": {"": NONCOMPLIANCE},
    "coconot_contrast": {"": BENIGN},
    "gsm8k": {"": BENIGN},
}
"""Set → category, in lower case → labels."""
