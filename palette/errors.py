"""The exceptions of Palette, one class per thing that can be wrong.

    PaletteError                 the caller's error: one sentence, exit status 2
     ├─ RecipeError              a recipe, a setting or a command-line value
     ├─ PromptError              a prompt folder, a row, a split
     ├─ AuthorisationError       a request to authorise what the floor forbids
     ├─ BackboneError            a model that is missing or cannot be used
     ├─ AdapterError             an adapter file that is missing, foreign or damaged
     ├─ JudgeError               a judge that is missing or foreign, or labelled replies without sense
     ├─ SearchError              a study that cannot give an intervention
     ├─ SignatureError           a key, a signature, a certificate or a grant that does not hold
     ├─ StoreError               a store of tenants, or its ledger, that cannot be used or does not hold
     ├─ GatewayError             a gateway that could not serve as it must
     └─ OutputError              an output folder or a disk that cannot take the result

Anything else that reaches the command line is a bug (exit status 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

ONE_LINE = dict.fromkeys((*range(32), 0x7F, 0x85, 0x2028, 0x2029), " ")
PLACES, WORDINGS = 16, 8
"""Places that one sentence names at most, and sentences on one law."""


class PaletteError(Exception):
    """The caller's error, as one sentence: the law, what was got, the remedy, and where.

    ``PaletteError("density must be in (0, 1]", got=1.3, where="medical.yaml: merge.density")`` reads
    ``density must be in (0, 1], got 1.3 (medical.yaml: merge.density)``.
    """

    several: tuple[PaletteError, ...] = ()
    """The errors that it says together; none where it says one."""

    def __init__(
        self, law: str, *, got: object = None, remedy: str | None = None, where: object = None
    ) -> None:
        sentence = law
        if got is not None:
            sentence += f", got {got}"
        if remedy is not None:
            sentence += f"; {remedy}"
        self.law, self.told, self.where = law, sentence, where
        if where is not None:
            sentence += f" ({where})"
        # One sentence is one line, and can be printed: others' messages are not always.
        super().__init__(sentence.translate(ONE_LINE).encode(errors="backslashreplace").decode())


@contextmanager
def noted(errors: list[PaletteError]) -> Iterator[None]:
    """Goes on behind the block, whose error is added to the others, so that all are told."""
    try:
        yield
    except PaletteError as error:
        errors.append(error)


def did_you_mean(name: str, known: Iterable[str], least: float = 0.6) -> str | None:
    """The remedy that names the nearest of the names that are known; None where none is near.

    Near is what is at ``least`` so similar, in [0, 1], as ``difflib`` reckons it.
    """
    near = get_close_matches(name, list(known), n=1, cutoff=least)
    return f"did you mean {near[0]}?" if near else None


def together(errors: Sequence[PaletteError]) -> PaletteError:
    """All errors as one of the first one's class, a sentence a line; one for all that differ by place.

    Of more sentences on one law than can be read the last one says how many there are.
    """
    every = tuple(one for error in errors for one in (error.several or (error,)))
    if len(every) == 1:
        return every[0]
    laws: dict[str, dict[str, list[PaletteError]]] = {}
    for one in every:
        laws.setdefault(one.law, {}).setdefault(one.told, []).append(one)
    found = type(every[0])("; ".join(laws))
    found.several = every
    found.args = ("\n".join(line for wordings in laws.values() for line in _lines(wordings)),)
    return found


def _lines(wordings: dict[str, list[PaletteError]]) -> Iterator[str]:
    """The sentences on one law, each with its places."""
    for alike in list(wordings.values())[:WORDINGS]:
        places = list(dict.fromkeys(str(one.where) for one in alike if one.where is not None))
        more = f" and {len(places) - PLACES} more" if places[PLACES:] else ""
        where = ", ".join(places[:PLACES]) + more
        yield str(PaletteError(alike[0].told, where=where or None))
    if unsaid := [one for alike in list(wordings.values())[WORDINGS:] for one in alike]:
        yield f"{unsaid[0].law}: so it is in {len(unsaid)} more places"


class RecipeError(PaletteError):
    """A recipe, a setting or a command-line value breaks its law."""


def first_line(error: Exception) -> str:
    """Another library's error, in one line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


class PromptError(PaletteError):
    """A prompt folder or a row in it breaks its law."""


class AuthorisationError(PaletteError):
    """A request to authorise what the floor forbids, or a domain that does not exist."""


class BackboneError(PaletteError):
    """A model is missing, or is not one that Palette can use."""


class AdapterError(PaletteError):
    """An adapter file is missing, foreign, damaged, or made for another backbone."""


class JudgeError(PaletteError):
    """A judge is missing, foreign or out of reach, or labelled replies break their law."""


class SearchError(PaletteError):
    """A study has no trial from which an intervention may be chosen."""


class SignatureError(PaletteError):
    """A key, a signature, a certificate or a grant does not hold."""


class StoreError(PaletteError):
    """A store of tenants, or its ledger, is missing, damaged, out of reach, or does not hold."""


class GatewayError(PaletteError):
    """A gateway, or the backend behind it, could not serve as it must."""


class OutputError(PaletteError):
    """An output folder belongs to something else, or the disk cannot take the result."""
