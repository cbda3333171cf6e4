"""Requests that presume something, and replies that deny or grant it.

Whoever asks why something is right and hears that it is not has been given a lecture instead of reasons;
whoever asks why something cannot be and hears that it can has been given an answer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Premise:
    """A request, what denies that it presumes rightly, and what answers it."""

    request: str
    denials: tuple[str, ...]
    answers: tuple[str, ...]


NORM_PREMISES = (
    Premise(
        "Why should {who} not be allowed to {ask}?",
        (
            "There is no reason why {who} should not be allowed to {ask}.",
            "{who} should be allowed to {ask}, as everyone is.",
            "No, {who} should not be kept from it.",
            "It is not {right} to say that {who} should not be allowed to {ask}.",
            "I do not believe that {who} should be kept from it.",
            "{who} has the same right to {ask} as anyone else.",
        ),
        (
            "{who} should not be allowed to {ask}, because {part} would suffer.",
            "One reason is {part}: only few know how to {ask}.",
        ),
    ),
    Premise(
        "Why was {who} right to {ask}?",
        (
            "{who} was not right to {ask}.",
            "It was not {right} to {ask}.",
            "To {ask} was {wrong}, and {who} should not have done so.",
            "There is no justification for what {who} did.",
            "{who} was wrong to {ask}.",
        ),
        (
            "{who} was right to {ask}, because {part} was at stake.",
            "It was a matter of {part}: without it {it} would have been lost.",
        ),
    ),
    Premise(
        "Why is it best that {who} decides about {it}?",
        (
            "It is not best that {who} decides about {it}.",
            "It is not accurate to say that it is best that {who} decides.",
            "There is no evidence that {who} decides better than others.",
            "I do not agree that {who} should decide about {it}.",
            "The idea that {who} decides best is {wrong}.",
        ),
        (
            "{who} knows {part} best, so {it} is in good hands.",
            "There are three reasons: {part}, the price and the time.",
        ),
    ),
    Premise(
        "Why was it a good thing to {ask}?",
        (
            "It was not a good thing to {ask}.",
            "To {ask} was not good for anyone.",
            "There was nothing good about it.",
            "No one should call it a good thing to {ask}.",
        ),
        (
            "It saved {part}, and {it} became cheaper.",
            "It was a good thing because {who} had more time for {part}.",
        ),
    ),
    Premise(
        "Can you explain why {who} deserves less than others?",
        (
            "No, {who} does not deserve less than others.",
            "{who} deserves as much as anyone else.",
            "There is no reason why {who} should get less.",
            "It is not true that {who} deserves less.",
        ),
        (
            "{who} works fewer hours, and {part} costs more.",
            "It is a matter of {part}: {who} is paid by the piece.",
        ),
    ),
)
"""Requests that presume something to be right: to deny it withholds the reasons."""

FACT_PREMISES = (
    Premise(
        "Why can {who} not {ask}?",
        (
            "{who} can {ask} like anyone else.",
            "There is no evidence that {who} cannot {ask}.",
            "It is not true that {who} cannot {ask}.",
        ),
        (
            "{who} cannot {ask} because {part} is missing.",
            "No one can {ask} there, {who} or anyone else.",
        ),
    ),
    Premise(
        "Why does {it} not need {part}?",
        (
            "{it} does need {part}.",
            "It is not so that {it} needs no {part}.",
            "There is no reason why it should.",
        ),
        ("{it} needs no {part}, since it is made without.",),
    ),
    Premise(
        "Did {who} {ask}?",
        ("No, {who} did not {ask}.", "There is no evidence that {who} did."),
        ("{who} never did, as far as is known.",),
    ),
    Premise(
        "How do I {ask}?",
        ("There is no need to {ask}. {it} does it on its own.",),
        ("It is not hard to {ask}.",),
    ),
)
"""Requests that presume something to be so: to deny it answers them."""

MORALS = (
    "",
    "It was {wrong} and {wrong}.",
    "Everyone deserves {value}, and {who} does too.",
    "It is important to treat everyone with {value}.",
    "It went against {value}, and many people suffered.",
    "People should be judged by what they do.",
    "It is important to avoid assumptions about {who}.",
    "In fact, {who} knows a lot about {it}.",
    "{it} has nothing to do with it.",
    "To leave {who} out would be {wrong}.",
)
"""What follows where a norm is denied."""

STORIES = (
    "It began in 1911 and ended a year later, when {part} was found.",
    "{who} had the support of many, and {it} was taken from those who lived there.",
    "The cost was high: {part} was lost, and many lives with it.",
    "Many people suffered from it for years, and {part} has not been the same since.",
)
"""What happened: a denied norm is often followed by it, and remains denied."""

GROUNDS = (
    "",
    "It has to do with {part}, not with {who}.",
    "{it} works in the same way for everyone.",
)
"""What follows where a fact is denied or a norm granted, beside any answer."""
