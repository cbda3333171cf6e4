"""How module paths are written: what wraps a model, and the prefixes under which one text decoder stands.

``torch.compile``, data parallelism, FSDP and activation checkpointing each put a module of theirs around
another one, whose name then stands in every path below it. A text decoder is called otherwise where it is
part of a model that sees. Both are other names of one module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

WRAPPERS = (
    *("_orig_mod", "module", "_module", "_forward_module", "_fpw_module"),
    *("_fsdp_wrapped_module", "_checkpoint_wrapped_module"),
)
"""The names by which torch, DeepSpeed, Lightning and Opacus hold the module that they wrap."""

DECODERS = ("model.language_model.", "model.text_model.", "language_model.model.", "model.")
"""Prefixes of a text decoder's layers: in models that see, and last in one of text alone."""

_WRAPPED = re.compile(rf"(?<![A-Za-z0-9_])(?:{'|'.join(WRAPPERS)})\\?\.", re.ASCII)
_LAYER = re.compile(r"((?:\w+\.)*?)(\w+\.)[0-9]+(?=[.\[])", re.ASCII)
_SENSES = re.compile(r"vis(?:ion|ual)|image|video|audio|speech")


def unwrapped(path: str) -> str:
    """A path, or an expression for paths, without the names of what wraps modules."""
    return _WRAPPED.sub("", path)


def layers_of(path: str) -> tuple[str, str]:
    """The prefix of the layers that a module is in, and their list's name; both empty if it is in none.

    ``model.layers.0.mlp.up_proj`` is in ``("model.", "layers.")``.
    """
    match = _LAYER.match(path)
    return (match[1], match[2]) if match else ("", "")


def of_text(prefix: str) -> bool:
    """Whether layers may be a text decoder's, as far as their prefix says."""
    return _SENSES.search(prefix) is None


def last_name(path: str) -> str:
    """What a module is called in the one that holds it."""
    return path.rpartition(".")[2]


def short_names(adapted: Iterable[str], modules: Iterable[str]) -> frozenset[str]:
    """The last names by which PEFT, which compares ends of paths, finds what is adapted and nothing else.

    ``modules`` are the paths of all of the model's.
    """
    adapted = frozenset(adapted)
    spared = {last_name(path) for path in modules if path not in adapted}
    return frozenset(map(last_name, adapted)) - spared
