"""Where a prefix stands in a rendered prompt, in any chat template."""

from __future__ import annotations

from collections.abc import Sequence

from palette.backbones import Backbone, shared
from palette.errors import BackboneError
from palette.mosaic.settings import Place

Heads = tuple[list[int], list[int]]
"""What stands before a user's first words: without a system prompt, and behind one."""

WORDS = ("0", "Why?", "one two", "Tell me a story")
"""Messages of nothing in common, from whose renderings the shared tokens are read."""


def insertion(backbone: Backbone, ids: Sequence[int], place: Place, known: Heads | None = None) -> int:
    """How many tokens of a rendered prompt stand before the prefix.

    ``before``: none. ``bos``: the first one, if it is the token that begins a text. ``turn``: all up
    to the words of the first user; ``known`` are the backbone's ``heads``, if they were read before.

    Raises:
        BackboneError: if ``turn`` cannot be found in the prompt.
    """
    if place == "before":
        return 0
    if place == "end":
        return max(0, len(ids) - backbone.post_instruction)
    if place == "bos":
        begins = backbone.tokenizer.bos_token_id
        return int(bool(ids) and begins is not None and ids[0] == begins)
    head, turn = known or heads(backbone)
    if list(ids[: len(head)]) == head:
        return len(head)
    for start in range(len(ids) - len(turn) + 1):
        if turn and list(ids[start : start + len(turn)]) == turn:
            return start + len(turn)
    raise BackboneError(
        "a prompt must have a user's turn for control tokens to stand in it",
        got="none that the chat template shows",
        remedy="set place to before or bos",
        where=backbone.name,
    )


def heads(backbone: Backbone) -> Heads:
    """What stands before a user's first words: without a system prompt, and behind one."""
    plain = common([backbone.render([user(word)]) for word in WORDS])
    try:
        behind = [
            common([backbone.render([{"role": "system", "content": system}, user(word)]) for word in WORDS])
            for system in WORDS
        ]
    except Exception:
        return plain, []
    return plain, common([head[::-1] for head in behind])[::-1]


def user(words: str) -> dict[str, str]:
    """A message of the user."""
    return {"role": "user", "content": words}


def common(sequences: Sequence[list[int]]) -> list[int]:
    """The first tokens that all sequences share."""
    return sequences[0][: shared(sequences)]
