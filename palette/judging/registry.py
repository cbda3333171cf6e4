"""The one way to name a judge, in recipes and on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from palette.errors import JudgeError
from palette.judging.judge import Judge
from palette.judging.rules import RuleJudge

PLAIN = ("panel", "rule", "trained")
"""Judges that need nothing else."""

WITH_ARGUMENT = {"trained": "PATH", "classifier": "PATH", "chat": "MODEL@URL"}
"""Judges that are named with something of their own."""

FORMS = ", ".join([*PLAIN, *(f"{kind}:{what}" for kind, what in WITH_ARGUMENT.items())])
"""All forms, for messages and descriptions."""


def checked_name(name: str) -> str:
    """The name of a judge, if it has one of the forms.

    Raises:
        ValueError: if it has none.
    """
    kind, colon, argument = name.partition(":")
    if name in PLAIN:
        return name
    if not colon or not argument or kind not in WITH_ARGUMENT:
        raise ValueError(f"a judge must be one of {FORMS}")
    if kind == "chat":
        from palette.judging.chat import parse_address

        parse_address(argument)
    return name


JudgeName = Annotated[str, AfterValidator(checked_name)]
"""A judge by name, as a setting."""


def judge_named(name: str, prefixes: Sequence[str] = ()) -> Judge:
    """The judge of a name; ``prefixes`` are the backbone's own refusal prefixes.

    The judges of rules know the prefixes, alone and in the panel; the others have no use for them.

    Raises:
        JudgeError: if the name has none of the forms, or its file is no judge.
        BackboneError: if there is no such classifier.
        OutputError: if the file of a trained judge is missing or damaged.
    """
    try:
        kind, _, argument = checked_name(name).partition(":")
    except ValueError as error:
        raise JudgeError(str(error), got=repr(name), remedy="choose one of them") from error
    rules = RuleJudge(tuple(prefixes))
    if kind == "rule":
        return rules
    if kind == "chat":
        from palette.judging.chat import ChatJudge, parse_address

        return ChatJudge(*parse_address(argument))
    if kind == "classifier":
        from palette.judging.classifier import load_classifier_judge

        return load_classifier_judge(argument)
    from palette.judging.panel import PanelJudge
    from palette.judging.trained import load_judge

    if kind == "trained":
        return load_judge(Path(argument)) if argument else load_judge()
    return PanelJudge(rules)
