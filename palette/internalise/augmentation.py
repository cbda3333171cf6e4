"""Prompt augmentation: prompts that nobody wrote, crossed of two that somebody did, and what they are.

A student that meets few names learns them by heart, and mistakes all others. What begins as one prompt and
ends as another holds names, wordings and requests together that no row has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch.nn.functional import softplus

from palette.backbones import shared
from palette.internalise.examples import Example, Tokens
from palette.shapes import Float, Tensor

ATTEMPTS = 8
"""Prompts that are crossed for each one that is wanted: most are no target prompt any more."""
JUDGES = 5
"""How many must agree that one is; each has not seen a part of the prompts."""
RIDGE, ITERATIONS = 1e-3, 100


@dataclass(frozen=True)
class Frame:
    """What all prompts begin and end with, a chat template's parts, which crossing leaves whole."""

    before: Tokens
    after: Tokens

    @classmethod
    def of(cls, prompts: Sequence[Tokens]) -> Frame:
        """The frame of at least one prompt."""
        before = shared(prompts)
        after = shared([prompt[before:][::-1] for prompt in prompts])
        return cls(prompts[0][:before], prompts[0][len(prompts[0]) - after :])

    def content(self, prompt: Tokens) -> Tokens:
        """What a prompt has of its own."""
        return prompt[len(self.before) : len(prompt) - len(self.after)]

    def around(self, content: Tokens) -> Tokens:
        """The prompt of a content."""
        return (*self.before, *content, *self.after)


def crossed(examples: Sequence[Example], count: int, draw: Random) -> list[Example]:
    """So many prompts that begin as one example's and end as another's, with the latter's reply."""
    if len(examples) < 2:
        return []
    frame = Frame.of([example.prompt for example in examples])
    contents = [frame.content(example.prompt) for example in examples]
    made = []
    for _ in range(count):
        first, second = draw.sample(range(len(examples)), 2)
        begun, content = contents[first], contents[second]
        middle = (*begun[: draw.randint(0, len(begun))], *content[draw.randint(0, len(content)) :])
        made.append(replace(examples[second], prompt=frame.around(middle), taught=False))
    return made


class LikenessVote:
    """Whether the tokens of a prompt are those of our prompts, by several judges that must agree.

    Each is a logistic regression on which tokens occur, fitted to all prompts but a part of its own, both
    sides counting alike: min over w, b of mean log(1 + exp(−y (w·x + b))) + λ‖w‖². What tells ours from
    all others is weighed, and a name that one prompt has is not.
    """

    def __init__(self, ours: Sequence[Tokens], others: Sequence[Tokens]) -> None:
        whole = [*ours, *others]
        self._place = {token: i for i, token in enumerate(sorted({t for each in whole for t in each}))}
        held = self._held(whole)
        sides = torch.tensor([1.0] * len(ours) + [-1.0] * len(others))
        # Of both sides, since ours stand first and others behind them.
        part = torch.tensor([*range(len(ours)), *range(len(others))]) % JUDGES
        fits = [fitted_line(held[part != n], sides[part != n]) for n in range(JUDGES)]
        self._weights, self._biases = (torch.stack(each) for each in zip(*fits, strict=True))

    def __call__(self, contents: Sequence[Tokens]) -> list[bool]:
        """Whether all judges take each content for one of ours."""
        votes = self._held(contents) @ self._weights.T + self._biases > 0
        return votes.all(-1).tolist()

    def _held(self, contents: Sequence[Tokens]) -> Float[Tensor, "content token"]:
        """Which of the known tokens each content holds."""
        held = torch.zeros(len(contents), len(self._place))
        for line, content in zip(held, contents, strict=True):
            line[[self._place[t] for t in set(content) if t in self._place]] = 1.0
        return held


def fitted_line(
    held: Float[Tensor, "content token"], sides: Float[Tensor, "content"]
) -> tuple[Float[Tensor, "token"], Float[Tensor, ""]]:
    """The weights and the bias of a logistic regression whose two sides, 1 and −1, count alike."""
    line = torch.zeros(held.shape[1] + 1, requires_grad=True)
    counts = {side: max(1, int((sides == side).sum())) for side in (1.0, -1.0)}
    shares = torch.tensor([0.5 / counts[side] for side in sides.tolist()])
    optimiser = torch.optim.LBFGS([line], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        margins = sides * (held @ line[:-1] + line[-1])
        value = (shares * softplus(-margins)).sum() + RIDGE * line[:-1].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return line[:-1].detach(), line[-1].detach()


def crossed_alike(ours: Sequence[Tokens], others: Sequence[Tokens], count: int, draw: Random) -> list[Tokens]:
    """At most so many prompts that are one of ours inside or outside, and in their tokens on the whole.

    What they are crossed with are ours and ``others``. Both are cut at the same two shares of their
    length, so that a name in the middle is changed oftener than by one cut. Whether the backbone refuses
    them is not known here.
    """
    if not ours or not others:
        return []
    frame = Frame.of([*ours, *others])
    mine, theirs = ([frame.content(prompt) for prompt in group] for group in (ours, others))
    written = [*mine, *theirs]
    made: dict[Tokens, None] = {}
    for _ in range(ATTEMPTS * count):
        sides = [draw.choice(mine), draw.choice(written)]
        draw.shuffle(sides)
        cuts = sorted((draw.random(), draw.random()))
        (begin, end), (other, last) = ([round(cut * len(side)) for cut in cuts] for side in sides)
        made[(*sides[0][:begin], *sides[1][other:last], *sides[0][end:])] = None
    known = set(written)
    candidates = [content for content in made if content not in known]
    if not candidates:
        return []
    votes = LikenessVote(mine, theirs)(candidates)
    return [frame.around(content) for content, vote in zip(candidates, votes, strict=True) if vote][:count]
