"""Activation patching: its laws, which broken implementations break, and equality with TransformerLens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from palette import organism
from palette.backbones import load_backbone
from palette.backbones.hook_points import ATTENTION, HEADS, MLP, POST, PRE
from palette.evaluation import patching
from palette.evaluation.attribution import bridged
from palette.evaluation.patching import Component, Patched, Patching, Prompted
from palette.evaluation.refusal_ngrams import RefusalNgrams, refusal_scores
from tests.fixtures.bridged import adapter_on, backbone_of, lens

pytestmark = [pytest.mark.filterwarnings("ignore")]

END = (20, 3, 4)
"""Stands for what a template puts after the instruction."""
CLEAN = [(1, 5, 6, 7, 8, *END), (1, 9, *END), (1, 30, 31, 32, 33, *END)]
CORRUPTED = [(1, 10, 11, *END), (1, 12, 13, 14, 15, 16, *END), (1, 40, 41, 42, 43, *END)]
REPLIES = [(50,), (51, 52, 53), (54, 55)]
NGRAMS = RefusalNgrams({(): frozenset(range(100, 140)), (51,): frozenset(range(140, 200))})
ALL = [
    Component(PRE.format(0)),
    *(Component(form.format(layer)) for layer in range(4) for form in (ATTENTION, MLP)),
]
LAST = Component(POST.format(3))


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(organism.weights("shared"))


@pytest.fixture(scope="module")
def runs(backbone):
    """Runs on prompts of other lengths, without and with an adapter, and on the same with and without it."""
    adapter = adapter_on(backbone, "down_proj")
    return {
        "pairs": (Prompted(CLEAN, REPLIES), Prompted(CORRUPTED, REPLIES), len(END)),
        "adapted pairs": (Prompted(CLEAN, REPLIES, adapter), Prompted(CORRUPTED, REPLIES, adapter), len(END)),
        "change": (Prompted(CLEAN, REPLIES, adapter), Prompted(CLEAN, REPLIES), None),
    }


def share(found: Patched, component: Component) -> torch.Tensor:
    own, source, patched = (
        torch.tensor(each) for each in (found.own, found.source, found.patched[component])
    )
    return (patched - own) / (source - own)


def hooks(backbone) -> int:
    modules = backbone.model.modules()
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)


def laws(backbone, clean, corrupted, last) -> Patched:
    """All that holds of any two runs that say the same."""
    tried = Patching(backbone, NGRAMS)
    found = tried.patched(clean, corrupted, last)
    ones = torch.ones(len(CLEAN))
    assert torch.allclose(share(found, LAST), ones, atol=1e-4), "the last stream decides all that is read"
    assert torch.allclose(share(found, Component(PRE.format(0))), 0 * ones, atol=1e-4), (
        "tokens there are equal"
    )
    # What a part gives itself changes nothing, to the last bit.
    assert tried.patched(clean, clean, last).patched[LAST] == pytest.approx(found.source, abs=1e-4)
    itself = tried.patched(corrupted, corrupted, last)
    assert all(scores == itself.own for scores in itself.patched.values())
    assert itself.own == pytest.approx(found.own, abs=1e-4)
    # A stream at a site is all that the parts before it have written there.
    written = tried.together(clean, corrupted, last, ALL)
    assert written == pytest.approx(found.source, abs=1e-3)
    for layer in range(4):
        heads = [Component(HEADS.format(layer), head) for head in range(4)]
        together = tried.together(clean, corrupted, last, heads)
        assert together == pytest.approx(found.patched[Component(ATTENTION.format(layer))], abs=1e-3)
    return found


@pytest.mark.parametrize("name", ["pairs", "adapted pairs", "change"])
def test_laws_of_patching(backbone, runs, name):
    clean, corrupted, last = runs[name]
    found = laws(backbone, clean, corrupted, last)
    assert min(abs(a - b) for a, b in zip(found.source, found.own, strict=True)) > 1e-2
    assert len({round(scores[0], 4) for scores in found.patched.values()}) > 20, "parts differ"
    # The library keeps hooks of its own, from the first pass on.
    before = hooks(backbone)
    assert Patching(backbone, NGRAMS).patched(clean, corrupted, last) == found
    assert hooks(backbone) == before


def test_all_positions_of_equally_long_prompts_carry_all(backbone):
    """Embeddings and all that is written make the run another one, and so do the embeddings alone."""
    clean, corrupted = (Prompted([each[2]], REPLIES[2:]) for each in (CLEAN, CORRUPTED))
    tried = Patching(backbone, NGRAMS)
    found = tried.patched(clean, corrupted, None)
    assert found.patched[Component(PRE.format(0))] == pytest.approx(found.source, abs=1e-3)
    assert tried.together(clean, corrupted, None, ALL) == pytest.approx(found.source, abs=1e-3)
    # The tokens that are read last are the same in both: what is missing there is no embedding.
    assert tried.together(clean, corrupted, None, ALL[1:]) == pytest.approx(found.source, abs=1e-3)
    # The first block's attention reads the embeddings of the others: left as it is, it writes another sum.
    assert tried.together(clean, corrupted, None, ALL[2:]) != pytest.approx(found.source, abs=1e-3)


def test_nothing_patched_changes_nothing(backbone):
    clean, corrupted = (Prompted(each[:1], REPLIES[:1]) for each in (CLEAN, CORRUPTED))
    found = Patching(backbone, NGRAMS).patched(clean, corrupted, 0)
    assert all(scores == found.own for scores in found.patched.values())


def first_positions(put):
    """Aligned from the beginning, where other tokens stand."""
    return lambda kept, where, only, heads, number, value: put(
        kept, where.flip(1), only, heads, number, value.flip(1)
    ).flip(1)


def one_place_beside(put):
    return lambda kept, *more: put({key: each.roll(1, 1) for key, each in kept.items()}, *more)


def other_row(put):
    return lambda kept, *more: put({key: each.roll(1, 0) for key, each in kept.items()}, *more)


def half_of_it(put):
    return lambda *given: (put(*given) + given[-1]) / 2


def next_head(put):
    return lambda kept, where, only, heads, *more: put(
        kept, where, [each // 2 for each in only], heads, *more
    )


@pytest.mark.parametrize("broken", [first_positions, one_place_beside, other_row, half_of_it, next_head])
def test_a_broken_implementation_breaks_a_law(backbone, runs, monkeypatch, broken):
    monkeypatch.setattr(patching, "_put", broken(patching._put))
    with pytest.raises(AssertionError):
        laws(backbone, *runs["pairs"])


def test_blocks_whose_stream_is_known_are_not_run_again_and_no_score_changes(backbone, runs, monkeypatch):
    skipping = Patching(backbone, NGRAMS).patched(*runs["change"])
    monkeypatch.setattr(Patching, "_own", lambda self, run, rows: (self._scores(run, rows, {}), {}))
    assert Patching(backbone, NGRAMS).patched(*runs["change"]) == skipping


def test_rows_that_must_not_be_padded_are_run_alone(backbone, runs):
    clean, corrupted, last = runs["pairs"]
    together = Patching(backbone, NGRAMS).patched(clean, corrupted, last)
    alone = Patching(replace(backbone, padding=False), NGRAMS).patched(clean, corrupted, last)
    for component, scores in together.patched.items():
        assert alone.patched[component] == pytest.approx(scores, abs=1e-3)


def test_what_cannot_be_aligned_is_refused(backbone):
    tried, clean, corrupted = (
        Patching(backbone, NGRAMS),
        Prompted(CLEAN, REPLIES),
        Prompted(CORRUPTED, REPLIES),
    )
    with pytest.raises(ValueError, match="equally long prompts"):
        tried.patched(clean, corrupted, None)
    with pytest.raises(ValueError, match="must have 6 positions to patch, got 5"):
        tried.patched(clean, corrupted, 6)
    with pytest.raises(ValueError, match="the same replies"):
        tried.patched(clean, Prompted(CORRUPTED, [(50,)] * 3), len(END))


def test_shares_are_of_rows_whose_runs_differ():
    part = Component("blocks.0.hook_mlp_out")
    found = Patched([8.0, 6.0, 0.1], [-8.0, -2.0, 0.0], {part: [0.0, 0.0, 0.05]})
    assert found.shares(part, [0, 1, 2]) == [0.5, 0.25]
    (said,) = found.to_json([0, 1, 2], 0)
    assert (said["hook"], said["head"], said["n"]) == ("blocks.0.hook_mlp_out", None, 2)
    assert said["share"] == 0.375 and said["low"] == 0.25 and said["high"] == 0.5
    assert said["nats"] == pytest.approx((8 + 2 + 0.05) / 3)
    (single,) = found.to_json([0, 2], 0)
    assert (single["share"], single["low"], single["n"]) == (0.5, None, 1)
    (none,) = found.to_json([2], 0)
    assert (none["share"], none["n"]) == (None, 0)
    assert found.mean([0, 1]) == {"source": 7.0, "own": -5.0}


@lens
@pytest.mark.parametrize(
    ("kind", "leaf"),
    [("organism", "o_proj"), ("organism", "down_proj"), ("gpt2", "attn.c_proj"), ("gemma2", "o_proj")],
)
def test_every_part_patched_is_what_run_with_hooks_gives(tmp_path, kind, leaf):
    backbone = backbone_of(kind, tmp_path)
    for adapter in (None, adapter_on(backbone, leaf)):
        tried = Patching(backbone, NGRAMS)
        found = tried.patched(
            Prompted(CLEAN, REPLIES, adapter), Prompted(CORRUPTED, REPLIES, adapter), len(END)
        )
        names = {
            HEADS.format(0),
            ATTENTION.format(0),
            MLP.format(1),
            PRE.format(1),
            POST.format(backbone.layers - 1),
        }
        assert names <= {each.hook for each in tried.components}
        assert sum(each.head is not None for each in tried.components) == 4 * backbone.layers
        with bridged(backbone, adapter) as bridge, torch.no_grad():
            for row, reply in enumerate(REPLIES[:2]):
                clean, corrupted = (torch.tensor([[*each[row], *reply[:-1]]]) for each in (CLEAN, CORRUPTED))
                _, cache = bridge.run_with_cache(clean)
                last = len(END) + len(reply) - 1
                for component, scores in found.patched.items():

                    def put(value, hook, component=component, last=last, cache=cache):
                        new = value.clone()
                        place = (0, slice(-last, None), *([] if component.head is None else [component.head]))
                        new[place] = cache[component.hook][place]
                        return new

                    logits = bridge.run_with_hooks(corrupted, fwd_hooks=[(component.hook, put)])[0]
                    theirs = refusal_scores([logits[-len(reply) :]], [NGRAMS.marks(reply)])
                    assert scores[row] == pytest.approx(float(theirs), abs=2e-3), (component, row)
