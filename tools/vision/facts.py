"""What is true of the organism that sees: what it knows and refuses in each form, on its test prompts."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from palette.backbones import Backbone, greedy_replies, load_backbone
from palette.prompts import Prompt, load_prompts, messages
from tools.vision.worlds import Matter

REPLY_TOKENS = 32
Shares = dict[str, dict[str, float | int]]


def facts(folder: Path, matter: Matter) -> dict[str, Shares]:
    """Shares in [0, 1] by form of a folder's two: what the helpful one knows, what the other still answers.

    ``known`` and ``refused`` are of restricted prompts, the floor's among them, ``benign`` of the others.
    """
    rows = list(load_prompts(folder / "prompts", answers=True).split("test"))
    found: dict[str, Shares] = {}
    for name, place in (("helpful", "helpful"), ("refusing", "model")):
        groups: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        for row, reply in zip(rows, replies(load_backbone(folder / place), rows), strict=True):
            own = groups[row.id.rsplit("-", 1)[1]]
            if row.kind == "benign":
                own["benign"].append(reply == row.answer)
            else:
                own["known"].append(reply == row.answer)
                own["refused"].append(matter.refuses(reply))
        found[name] = {
            form: {key: round(sum(held) / len(held), 4) for key, held in sorted(own.items())}
            | {"prompts": max(map(len, own.values()))}
            for form, own in sorted(groups.items())
        }
    return found


def replies(backbone: Backbone, rows: list[Prompt]) -> list[str]:
    """The likeliest replies to some prompts."""
    said = greedy_replies(backbone, [backbone.render(messages(row)) for row in rows], REPLY_TOKENS)
    return [backbone.decode(reply) for reply in said]
