from __future__ import annotations

import pytest

from palette.authorisation import FLOOR, Authorisation, Role, authorise
from palette.authorisation.roles import Labelled
from palette.errors import AuthorisationError
from palette.prompts import Prompt

AVAILABLE = ("legal", "medical", "weapons")


def row(domain: str = "medical", kind: str = "restricted", tier: str | None = None) -> Prompt:
    return Prompt(id="1", domain=domain, prompt="p", kind=kind, split="test", tier=tier)  # type: ignore[arg-type]


def test_a_prompt_is_a_labelled_row() -> None:
    assert isinstance(row(), Labelled)


@pytest.mark.parametrize(
    ("prompt", "role"),
    [
        (row(), Role.TARGET),
        (row(tier="A"), Role.TARGET),
        (row(tier="B"), Role.PRESERVE),
        (row(tier="C"), Role.FLOOR),
        (row("legal"), Role.PRESERVE),
        (row("weapons"), Role.FLOOR),
        (row(kind="benign"), Role.BENIGN),
        (row("legal", "benign"), Role.BENIGN),
    ],
)
def test_every_prompt_has_its_role_for_one_opened_domain(prompt: Prompt, role: Role) -> None:
    assert authorise(["medical"], AVAILABLE).role(prompt) is role


def test_tier_b_is_opened_with_a_reason_of_its_domain_and_preserved_without() -> None:
    with_reason = authorise(["medical", "legal"], AVAILABLE, reasons={"medical": "clinicians"})
    assert with_reason.role(row("medical", tier="B")) is Role.TARGET
    assert with_reason.role(row("legal", tier="B")) is Role.PRESERVE


def test_a_reason_alone_opens_no_domain() -> None:
    assert authorise(["legal"], AVAILABLE, reasons={"medical": "why"}).role(row(tier="B")) is Role.PRESERVE


def test_an_authorisation_holds_its_domains_sorted_and_once() -> None:
    found = authorise(["medical", "legal", "medical"], AVAILABLE)
    assert found == Authorisation(("legal", "medical"), FLOOR, {})


def test_domains_put_on_the_floor_are_held_by_it() -> None:
    found = authorise(["medical"], AVAILABLE, floor=["legal", "hate"])
    assert found.role(row("legal")) is Role.FLOOR
    assert found.floor.digest != FLOOR.digest


def test_the_built_in_floor_may_be_named_though_the_prompts_have_no_such_domain() -> None:
    assert authorise(["medical"], ["medical"], floor=sorted(FLOOR.domains)).floor == FLOOR


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"domains": []},
            "a recipe must authorise at least one domain, got none; choose of legal, medical, weapons",
        ),
        (
            {"domains": ["medical", "weapons"]},
            "the floor cannot be authorised, got 'weapons'; authorise another domain",
        ),
        ({"domains": ["cse"]}, "the floor cannot be authorised, got 'cse'; authorise another domain"),
        (
            {"domains": ["medical"], "floor": ["medical"]},
            "the floor cannot be authorised, got 'medical'; authorise another domain",
        ),
        (
            {"domains": ["medicla"]},
            "every domain under 'authorise' must be one of the prompt folder's, got 'medicla'; "
            "did you mean medical? it has legal, medical, weapons",
        ),
        (
            {"domains": ["xyz"]},
            "every domain under 'authorise' must be one of the prompt folder's, got 'xyz'; "
            "it has legal, medical, weapons",
        ),
        (
            {"domains": ["medical"], "floor": ["legol"]},
            "every domain under 'floor' must be one of the prompt folder's, got 'legol'; "
            "did you mean legal? it has legal, medical, weapons",
        ),
        (
            {"domains": ["medical"], "reasons": {"zzz": "why"}},
            "every domain under 'reasons' must be one of the prompt folder's, got 'zzz'; "
            "it has legal, medical, weapons",
        ),
    ],
)
def test_a_request_that_breaks_a_law_is_answered_with_the_remedy(
    arguments: dict[str, object], sentence: str
) -> None:
    with pytest.raises(AuthorisationError) as caught:
        authorise(available=AVAILABLE, **arguments)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


def test_the_floor_may_be_given_as_a_generator() -> None:
    with pytest.raises(AuthorisationError):
        authorise(["medical"], AVAILABLE, floor=iter(["legol"]))
