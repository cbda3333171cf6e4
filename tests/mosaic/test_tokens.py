"""Control tokens as values: shape, order, digest, and where untrained ones are drawn from."""

from __future__ import annotations

import pytest
import torch

from palette.adapters.lora import BackboneIdentity
from palette.errors import AdapterError
from palette.mosaic.tokens import ControlTokens, initial


def test_the_table_is_in_canonical_order(backbone, tokens):
    made = tokens()
    turned = ControlTokens(dict(reversed(list(made.embeddings.items()))), made.backbone)
    assert turned.categories == made.categories == ("alpha", "beta", "delta", "gamma", "omega")
    assert torch.equal(turned.table, made.table)
    assert turned.digest == made.digest


def test_the_digest_is_of_what_tokens_do(tokens):
    made = tokens()
    others = [tokens(seed=1), tokens("turn"), ControlTokens(made.embeddings, made.backbone, "authorise")]
    assert len({one.digest for one in (made, *others)}) == 4
    assert ControlTokens(made.embeddings, made.backbone, card={"x": 1}).digest == made.digest


def test_an_added_category_leaves_the_others(tokens):
    made = tokens()
    more = made.with_category("kappa", torch.ones(3, made.width))
    assert len(more.categories) == 6
    assert all(torch.equal(more.embeddings[name], made.embeddings[name]) for name in made.categories)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ({}, "of one shape, .* for at least one category, got none"),
        ({"a": torch.zeros(2, 4), "b": torch.zeros(3, 4)}, r"got \(2, 4\), \(3, 4\)"),
        ({"a": torch.full((2, 4), torch.inf)}, "must be finite, got NaN or infinity for a"),
    ],
)
def test_what_is_no_set_of_tokens_is_refused(embeddings, message):
    with pytest.raises(AdapterError, match=message):
        ControlTokens(embeddings, BackboneIdentity("x", None))


def test_untrained_tokens_are_spread_as_the_vocabulary(backbone):
    found = initial(backbone, ["a"], 4000, 0)["a"]
    known = backbone.model.get_input_embeddings().weight
    assert torch.allclose(found.mean(0), known.mean(0), atol=0.02)
    assert torch.allclose(found.std(0), known.std(0), rtol=0.15)


def test_the_draw_of_a_category_hangs_on_its_name_alone(backbone):
    one = initial(backbone, ["b"], 3, 0)["b"]
    assert torch.equal(initial(backbone, ["a", "b"], 3, 0)["b"], one)
    assert not torch.equal(initial(backbone, ["b"], 3, 1)["b"], one)
    assert torch.equal(initial(backbone, ["b"], 5, 0)["b"][:3], one)
