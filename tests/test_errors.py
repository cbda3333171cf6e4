from __future__ import annotations

import pytest

from palette import errors
from palette.errors import PaletteError, PromptError, RecipeError, noted, together

KINDS = (
    errors.RecipeError,
    errors.PromptError,
    errors.AuthorisationError,
    errors.BackboneError,
    errors.AdapterError,
    errors.SearchError,
    errors.OutputError,
)


def test_a_law_alone_is_the_whole_sentence() -> None:
    assert str(PaletteError("a law")) == "a law"


def test_the_sentence_holds_the_law_what_was_got_the_remedy_and_where_in_that_order() -> None:
    error = RecipeError(
        "density must be in (0, 1]", got=1.3, remedy="lower it", where="a.yaml: merge.density"
    )
    assert str(error) == "density must be in (0, 1], got 1.3; lower it (a.yaml: merge.density)"


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [({"got": 0}, "law, got 0"), ({"remedy": "do"}, "law; do"), ({"where": "here"}, "law (here)")],
)
def test_each_part_of_the_sentence_may_stand_alone(parts: dict[str, object], sentence: str) -> None:
    assert str(PaletteError("law", **parts)) == sentence  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_of_the_package_is_a_palette_error_with_a_docstring(kind: type[PaletteError]) -> None:
    assert issubclass(kind, PaletteError)
    assert kind.__doc__
    with pytest.raises(PaletteError, match=r"^law$"):
        raise kind("law")


def test_errors_together_are_a_sentence_each_and_one_for_all_that_differ_by_place() -> None:
    found: list[PaletteError] = []
    for place in ("a:1", "b:2", "a:1"):
        with noted(found):
            raise PromptError("law", got=1, remedy="mend it", where=place)
    with noted(found):
        raise RecipeError("another law")
    whole = together([together(found), RecipeError("third")])
    assert str(whole).split("\n") == ["law, got 1; mend it (a:1, b:2)", "another law", "third"]
    assert isinstance(whole, PromptError)
    assert len(whole.several) == 5
    assert together(found[:1]) is found[0]


def test_more_than_can_be_read_is_counted() -> None:
    places = together([PromptError("law", where=number) for number in range(20)])
    assert str(places).endswith("14, 15 and 4 more)")
    wordings = together([PromptError("law", got=number) for number in range(20)])
    assert str(wordings).split("\n")[-1] == "law: so it is in 12 more places"


def test_a_sentence_is_one_line_that_can_be_printed() -> None:
    assert str(PaletteError("a law", got="two\nlines\x1b and \ud83d")) == "a law, got two lines  and \\ud83d"
