"""Every law of ``tests.fixtures.families`` on every family: a yes, or the reason that the table gives.

A law that a family's row says does not hold must fail with that reason, so that no row is stale.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer

from palette import organism
from palette.activations import RankOneEdit, captured
from palette.adapters.files import read_adapter
from palette.adapters.mounting import mounted
from palette.adapters.writing import write_adapter
from palette.backbones import Backbone, greedy_replies, load_backbone, next_token_logits
from palette.backbones.architectures import linear_shape
from palette.backbones.writers import behind
from palette.directions import editing
from palette.errors import BackboneError
from palette.internalise.lora import lora_layers, lora_parameters, read_out, trainable
from palette.moments import last_streams
from palette.search.settings import Caching
from palette.search.sweeps import SAVINGS, Sweeper, proven
from tests.fixtures.families import FAMILIES, LAWS, OUT_PROJ, build

pytestmark = pytest.mark.filterwarnings("ignore")
CLOSE = 3e-5
HEAD = [1, 5, *range(90, 98), 2]
DRAW = torch.Generator().manual_seed(7)


def drawn(count: int) -> list[int]:
    return torch.randint(90, 1000, (count,), generator=DRAW).tolist()


PROMPTS = [[*HEAD, *drawn(3)], [*HEAD, *drawn(9)], [*HEAD, *drawn(5)], [*HEAD, *drawn(24)]]
REPLIES = [drawn(4), drawn(2), drawn(6), drawn(3)]


def names(quick: bool) -> list:
    marks = [] if quick else [pytest.mark.slow]
    return [pytest.param(name, marks=marks) for name, each in FAMILIES.items() if each.quick == quick]


@pytest.fixture(scope="module", params=[*names(quick=True), *names(quick=False)])
def family(request, tmp_path_factory) -> tuple[str, Backbone, Path]:
    """The family's name, its model as Palette reads it, and where its files are."""
    folder = tmp_path_factory.mktemp("family")
    build(FAMILIES[request.param]).save_pretrained(folder)
    AutoTokenizer.from_pretrained(organism.weights()).save_pretrained(folder)
    return request.param, load_backbone(folder, request.param), folder


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-9))


@torch.no_grad()
def plain(backbone: Backbone, ids: list[int]) -> torch.Tensor:
    return backbone.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def edit(width: int) -> RankOneEdit:
    r = torch.randn(1, width, generator=torch.Generator().manual_seed(1))
    return RankOneEdit(r / r.norm(), torch.ones(1), torch.zeros(1))


@torch.no_grad()
def streams(backbone: Backbone, folder: Path) -> float:
    """Against the library's hidden states of each prompt alone, before or behind each block."""
    states = []
    for prompt in PROMPTS[:3]:
        out = backbone.model(input_ids=torch.tensor([prompt]), output_hidden_states=True, use_cache=False)
        states.append(out.hidden_states)
    seen: dict[int, torch.Tensor] = {}
    with captured(backbone.blocks, seen.__setitem__):
        backbone.model(input_ids=torch.tensor([PROMPTS[2]]), use_cache=False)
    # Recurrent models of the library's first kind keep what each block gave, not what it was given.
    first = 0 if apart(seen[0], states[2][0]) < CLOSE else 1
    sites = range(first, backbone.layers)
    found = [torch.cat(rows) for rows in zip(*last_streams(backbone, PROMPTS[:3], 3), strict=True)]
    # Longest first, as batches are.
    expected = {site: torch.stack([states[row][site - first][0, -3:] for row in (1, 2, 0)]) for site in sites}
    return max(apart(found[site], expected[site]) for site in sites)


def replies(backbone: Backbone, folder: Path) -> float:
    found = greedy_replies(backbone, PROMPTS, 6)
    for prompt, reply in zip(PROMPTS, found, strict=True):
        said: list[int] = []
        while len(said) < 6:
            token = int(plain(backbone, [*prompt, *said])[-1].argmax())
            if token in backbone.stops:
                break
            said.append(token)
        assert said == reply
    logits = next_token_logits(backbone, PROMPTS)
    return max(apart(logits[row], plain(backbone, prompt)[-1]) for row, prompt in enumerate(PROMPTS))


def search(backbone: Backbone, folder: Path) -> float:
    caching = proven(backbone, PROMPTS, REPLIES, Caching())
    assert any(getattr(caching, name) for name in SAVINGS)
    sweeper, worst = Sweeper(backbone, PROMPTS, REPLIES, caching), 0.0
    for edits in ({}, {("stream", site): edit(backbone.width) for site in (1, backbone.layers // 2)}):
        for part in sweeper.sweep(edits):
            with editing(backbone, edits):
                for row, logits in part.items():
                    expected = plain(backbone, [*PROMPTS[row], *REPLIES[row][:-1]])[-len(REPLIES[row]) :]
                    worst = max(worst, apart(logits, expected))
    return worst


def orthogonalisation(backbone: Backbone, folder: Path) -> float:
    r, edits = edit(backbone.width), {}
    writers, gains = backbone.writers, backbone.gains
    edits = {("writers", block): r for block in range(backbone.layers)}
    with editing(backbone, edits):
        found = plain(backbone, PROMPTS[1])
    model = copy.deepcopy(backbone.model)
    paths = {module: name for name, module in backbone.model.named_modules()}
    for writer in (writer for several in writers for writer in several):
        q = behind(r.direction[0], gains.get(writer))
        twin = model.get_submodule(paths[writer])
        weights = [twin.weight] if linear_shape(twin) else [[*twin.parameters(recurse=False)][-1]]
        for weight in weights:
            # Of square matrices the outputs are the rows, unless the library turns them.
            turned = "Conv1D" in type(twin).__name__ or weight.shape[-2] != len(q)
            matrix = weight.data if turned else weight.data.transpose(-1, -2)
            matrix -= (matrix @ q).unsqueeze(-1) * q
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([PROMPTS[1]]), use_cache=False).logits[0]
    assert apart(found, plain(backbone, PROMPTS[1])) > 1e-3, "the edit does nothing"
    return apart(found, expected)


def lora(backbone: Backbone, folder: Path) -> float:
    """One step of training; then its logits inside, mounted from the file, and of PEFT from the folder."""
    layers, ids = lora_layers(backbone, range(backbone.layers)), torch.tensor([PROMPTS[1]])
    with trainable(backbone, layers, rank=2, seed=0) as model:
        for _ in range(2):
            loss = backbone.model(input_ids=ids, use_cache=False).logits[..., 5].mean()
            loss.backward()
            for parameter in lora_parameters(model).values():
                if parameter.grad is not None:
                    step = parameter.grad / parameter.grad.abs().max().clamp(min=1e-9)
                    parameter.data -= 0.05 * step
                    parameter.grad = None
        inside = plain(backbone, PROMPTS[1])
        adapter = read_out(model, backbone, layers)
    bare = plain(backbone, PROMPTS[1])
    assert apart(inside, bare) > 1e-3, "the adapter does nothing"
    write_adapter(folder / "adapter", adapter)
    with mounted(backbone.model, read_adapter(folder / "adapter")):
        ours = plain(backbone, PROMPTS[1])
    assert torch.equal(plain(backbone, PROMPTS[1]), bare), "something of it is left"
    fresh = type(backbone.model).from_pretrained(folder, attn_implementation="eager")
    theirs = PeftModel.from_pretrained(fresh, folder / "adapter").eval()
    with torch.no_grad():
        loaded = theirs(input_ids=ids, use_cache=False).logits[0]
    return max(apart(inside, ours), apart(loaded, ours))


CHECKS = {check.__name__: check for check in (streams, replies, search, orthogonalisation, lora)}


def test_every_law_of_the_table_has_a_check():
    assert set(CHECKS) == set(LAWS)
    assert all(set(each.unlike) <= set(LAWS) for each in FAMILIES.values())


@pytest.mark.parametrize("law", LAWS)
def test_a_law_holds_or_says_why_not(family, law):
    name, backbone, folder = family
    row = FAMILIES[name]
    if reason := row.refused or row.unlike.get(law):
        if row.refused and law == "replies":
            # Nothing is read or edited inside it for a reply.
            assert greedy_replies(backbone, PROMPTS[:2], 3)
            return
        with pytest.raises(BackboneError, match=reason):
            CHECKS[law](backbone, folder)
        return
    assert CHECKS[law](backbone, folder) < CLOSE


def test_what_is_done_otherwise_is_said_or_stands_in_the_table(family):
    name, backbone, _ = family
    said = {notice for notice in backbone.notices if notice.startswith("padding")}
    note = FAMILIES[name].note
    assert bool(said) == (not backbone.padding) == note.startswith("padding")
    assert all(notice.startswith(note) for notice in said)
    if not FAMILIES[name].refused:
        left_out = [module for block in backbone.blocks for module, _ in block.named_modules()]
        adapted = " ".join(lora_layers(backbone, range(backbone.layers)))
        there = any(path.rpartition(".")[2] == "out_proj" for path in left_out)
        assert (there and "out_proj" not in adapted) == (note == OUT_PROJ)
