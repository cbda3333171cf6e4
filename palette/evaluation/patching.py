"""Activation patching: which parts carry a refusal from one run of a backbone into another.

What one part gives in a run is put into another run, at positions that hold the same tokens in both, and
the refusal score s of the other is read again: (s_patched − s_own) / (s_source − s_own) is the share of
the difference that the part carries (Vig et al. 2004.12265; Zhang and Nanda 2309.16042). With what is
refused as the source this is denoising, which finds parts that suffice; the other way round it is noising,
which finds parts that are needed. Parts have TransformerLens' names; the package is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch

from palette.activations import captured
from palette.adapters.lora import Adapter
from palette.adapters.mounting import mounted
from palette.backbones import Backbone, batches
from palette.backbones.hook_points import Edit, HookPoint, hook_points, hooked
from palette.backbones.scoring import CPU_TOKENS, forward, padded
from palette.backbones.skipping import skipped
from palette.evaluation.refusal_ngrams import RefusalNgrams, refusal_scores
from palette.processes import Advance, unheard
from palette.shapes import Bool, Tensor
from palette.statistics.paired import bootstrap_mean

Tokens = Sequence[int]

LEAST = 1.0
"""Nats by which two runs' refusal scores must differ for a share of the difference to mean anything."""
SAME = 1e-3
"""Nats by which a score may differ where blocks whose stream is known are not run again: rounding."""


@dataclass(frozen=True)
class Prompted:
    """One run of several rows: what they are asked and made to say, and the adapter that is on."""

    prompts: Sequence[Tokens]
    replies: Sequence[Tokens]
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Component:
    """What is patched: a hook point, or one head of those that stand side by side in it."""

    hook: str
    head: int | None = None


@dataclass(frozen=True)
class Patched:
    """Refusal scores, in nats, row by row: of the run patched from, of the one patched, and by part."""

    source: list[float]
    own: list[float]
    patched: dict[Component, list[float]]

    def mean(self, rows: Sequence[int]) -> dict[str, float]:
        """The mean refusal scores of some rows, in nats: of the run patched from, and of the one patched."""
        sides = {"source": self.source, "own": self.own}
        return {name: sum(scores[row] for row in rows) / len(rows) for name, scores in sides.items()}

    def shares(self, component: Component, rows: Sequence[int]) -> list[float]:
        """The share of the difference that a part carries, for each row whose two runs differ enough."""
        patched, own, source = self.patched[component], self.own, self.source
        told = [row for row in rows if abs(source[row] - own[row]) >= LEAST]
        return [(patched[row] - own[row]) / (source[row] - own[row]) for row in told]

    def to_json(self, rows: Sequence[int], seed: int) -> list[dict[str, Any]]:
        """Each part with its mean effect on some rows in nats, and its mean share with its interval.

        There is no share where no row tells one, and no interval of a single one.
        """
        found = []
        for component, scores in self.patched.items():
            shares = self.shares(component, rows)
            values: dict[str, Any] = {"share": None, "low": None, "high": None, "n": len(shares)}
            if len(shares) > 1:
                mean = bootstrap_mean(shares, seed)
                values |= {"share": mean.mean, "low": mean.low, "high": mean.high}
            elif shares:
                values["share"] = shares[0]
            effect = sum(scores[row] - self.own[row] for row in rows) / len(rows)
            found.append({"hook": component.hook, "head": component.head, "nats": effect, **values})
        return found


class Patching:
    """Runs of a backbone, parts of which are put into one another."""

    def __init__(self, backbone: Backbone, ngrams: RefusalNgrams) -> None:
        self._backbone, self._ngrams = backbone, ngrams

    @cached_property
    def points(self) -> dict[str, HookPoint]:
        """The backbone's hook points by name.

        Raises:
            BackboneError: if a part of a block cannot be patched.
        """
        return hook_points(self._backbone)

    @property
    def components(self) -> list[Component]:
        """All that can be patched alone, in the order in which it runs; heads each by itself."""
        return [
            Component(name, head)
            for name, point in self.points.items()
            for head in (range(point.heads) if point.heads else (None,))
        ]

    def patched(
        self, source: Prompted, into: Prompted, last: int | None, advance: Advance = unheard
    ) -> Patched:
        """The refusal scores of ``into`` with each part as it is in ``source``, and of both as they are.

        A part is put in at the ``last`` positions of the prompts and those of the replies, which are the same
        in both, or at all positions, which prompts of equal length have. One row of one part is a piece of
        work.

        Raises:
            ValueError: if replies differ, a prompt is shorter, or all positions are asked for of prompts that
                differ in length.
        """
        count = len(into.prompts)
        found = Patched([0.0] * count, [0.0] * count, {each: [0.0] * count for each in self.components})
        for rows in self._divided(source, into):
            where = self._where(rows, source, into, last)
            values: dict[str, dict[int, Tensor]] = {name: {} for name in self.points}
            keeping = {name: partial(_keep, values[name], where) for name in self.points}
            self._fill(found.source, rows, self._scores(source, rows, keeping))
            own, streams = self._own(into, rows)
            self._fill(found.own, rows, own)
            for component, scores in found.patched.items():
                edits = self._edits([component], values, where)
                layer = self.points[component.hook].layer
                self._fill(scores, rows, self._scores(into, rows, edits, layer, streams.get(layer)))
                advance(len(rows))
        return found

    def together(
        self, source: Prompted, into: Prompted, last: int | None, components: Sequence[Component]
    ) -> list[float]:
        """The refusal scores of ``into``, in nats, with several parts at once as they are in ``source``."""
        found = [0.0] * len(into.prompts)
        for rows in self._divided(source, into):
            where = self._where(rows, source, into, last)
            values: dict[str, dict[int, Tensor]] = {each.hook: {} for each in components}
            keeping = {name: partial(_keep, kept, where) for name, kept in values.items()}
            self._scores(source, rows, keeping)
            self._fill(found, rows, self._scores(into, rows, self._edits(components, values, where)))
        return found

    def _divided(self, source: Prompted, into: Prompted) -> Iterator[list[int]]:
        """Rows that are run together; each alone where rows must not be padded."""
        longest = [max(pair, key=len) for pair in zip(source.prompts, into.prompts, strict=True)]
        if self._backbone.pad is None:
            yield from ([row] for row in range(len(longest)))
            return
        whole = [[*prompt, *reply] for prompt, reply in zip(longest, into.replies, strict=True)]
        # What parts give is held for all positions of a batch, so that it is no larger than on a CPU.
        device = self._backbone.model.device
        yield from (batch.rows for batch in batches(whole, self._backbone.pad, device, CPU_TOKENS))

    def _where(
        self, rows: Sequence[int], source: Prompted, into: Prompted, last: int | None
    ) -> Bool[Tensor, "row last"]:
        """Which of the last positions are patched: rows end together, so that they are counted from there."""
        if source.replies != into.replies:
            raise ValueError("two runs must say the same replies, got others")
        counts = []
        for row in rows:
            lengths = {len(each.prompts[row]) for each in (source, into)}
            if last is None and len(lengths) > 1:
                raise ValueError(f"all positions are those of equally long prompts, got {sorted(lengths)}")
            if last is not None and last > min(lengths):
                raise ValueError(f"a prompt must have {last} positions to patch, got {min(lengths)}")
            counts.append((min(lengths) if last is None else last) + len(into.replies[row]) - 1)
        width = max(1, *counts)
        return torch.arange(width) >= width - torch.tensor(counts).unsqueeze(1)

    def _edits(
        self, components: Sequence[Component], values: Mapping[str, Mapping[int, Tensor]], where: Tensor
    ) -> dict[str, Edit]:
        """The edits that put parts in; heads of one point together."""
        heads: dict[str, list[int]] = {}
        for each in components:
            chosen = range(self.points[each.hook].heads) if each.head is None else [each.head]
            heads.setdefault(each.hook, []).extend(chosen)
        return {
            name: partial(_put, values[name], where, only, self.points[name].heads)
            for name, only in heads.items()
        }

    def _own(self, run: Prompted, rows: Sequence[int]) -> tuple[list[float], dict[int, Tensor]]:
        """The refusal scores of some rows as they are, and the stream by site, none if blocks need more."""
        streams: dict[int, Tensor] = {}
        with captured(self._backbone.blocks, streams.__setitem__):
            own = self._scores(run, rows, {})
        if self._backbone.shares_keys:
            return own, {}
        half = self._backbone.layers // 2
        try:
            again = self._scores(run, rows, {}, half, streams[half])
        except Exception:  # A model whose blocks hand on more than the stream may fail in any way.
            return own, {}
        same = all(abs(one - other) <= SAME for one, other in zip(own, again, strict=True))
        return own, streams if same else {}

    @torch.no_grad()
    def _scores(
        self,
        run: Prompted,
        rows: Sequence[int],
        edits: Mapping[str, Edit],
        first: int = 0,
        stream: Tensor | None = None,
    ) -> list[float]:
        """The refusal scores of some rows of a run, in nats, with edits; from a block on of known stream."""
        backbone, replies = self._backbone, [run.replies[row] for row in rows]
        # A reply's last token is predicted, not said.
        whole = [[*run.prompts[row], *reply[:-1]] for row, reply in zip(rows, replies, strict=True)]
        batch = padded(whole, range(len(rows)), backbone.pad, backbone.model.device)
        keep = max(map(len, replies))
        with (
            mounted(backbone.model, run.adapter) if run.adapter else nullcontext(),
            skipped(backbone.blocks, first, stream, backbone.values) if stream is not None else nullcontext(),
            hooked(self.points, edits),
        ):
            logits = forward(backbone, batch, keep).float()
        said = [logits[line, keep - len(reply) :] for line, reply in enumerate(replies)]
        scores: list[float] = refusal_scores(said, [*map(self._ngrams.marks, replies)]).tolist()
        return scores

    @staticmethod
    def _fill(column: list[float], rows: Sequence[int], values: Sequence[float]) -> None:
        for row, value in zip(rows, values, strict=True):
            column[row] = value


def _keep(kept: dict[int, Tensor], where: Bool[Tensor, "row last"], number: int, value: Tensor) -> Tensor:
    """Notes the last positions of a value, and gives it on as it is."""
    kept[number] = value.reshape(len(where), -1, value.shape[-1])[:, -where.shape[1] :].clone()
    return value


def _put(
    kept: Mapping[int, Tensor],
    where: Bool[Tensor, "row last"],
    only: Sequence[int],
    heads: int,
    number: int,
    value: Tensor,
) -> Tensor:
    """A value with what was noted in its stead at those positions, of heads in the numbers of some alone."""
    rows = value.reshape(len(where), -1, value.shape[-1])
    at = where.unsqueeze(-1)
    if heads:
        head = torch.arange(rows.shape[-1]) // (rows.shape[-1] // heads)
        at = at & torch.isin(head, torch.tensor([*only]))
    count = where.shape[1]
    # Parts of one model may lie on several devices.
    new = torch.where(at.to(value.device), kept[number].to(value.device), rows[:, -count:])
    return torch.cat([rows[:, :-count], new], dim=1).reshape(value.shape)
