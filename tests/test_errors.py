from __future__ import annotations

import pytest

from palette import errors
from palette.errors import PaletteError, RecipeError

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
