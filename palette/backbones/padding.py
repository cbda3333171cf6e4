"""Whether a model says the same where rows are padded on the left: proven when it is loaded."""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers import GenerationConfig

from palette.backbones.backbone import Backbone
from palette.backbones.cache import same_logits, window
from palette.backbones.scoring import forward, padded
from palette.backbones.template import PROBES
from palette.errors import BackboneError, PaletteError, first_line

STEPS = 3
"""Tokens that are generated for the proof: with the first one, what a cache holds has been gone on from."""
UNPADDED = (
    "padding on the left changes what the model says: only prompts of one length are run together, which "
    "takes longer"
)


def proven(backbone: Backbone) -> Backbone:
    """The backbone, which pads rows only if that changes none of its logits; a notice says where it does.

    Raises:
        BackboneError: if the library cannot run the model, or runs it otherwise than it is run here.
    """
    try:
        # Of a copy, so that nothing is known of the backbone's template before it is asked for.
        exact = bears_padding(replace(backbone))
    except PaletteError:
        raise
    except Exception as error:  # Models with code of their own may fail in any way.
        raise BackboneError(
            "the library must be able to run a model on a prompt and to go on from it",
            got=first_line(error),
            remedy="use another model, or another version of transformers",
            where=backbone.name,
        ) from error
    if exact:
        return backbone
    unpadded = replace(backbone, padding=False)
    unpadded.note(UNPADDED)
    return unpadded


@torch.no_grad()
def bears_padding(backbone: Backbone) -> bool:
    """Whether two prompts in one batch get the logits that each gets alone, up to rounding.

    Where the model keeps something else than keys and values, also what the library's own loop makes of it.

    Raises:
        BackboneError: if what one gets alone is not what the library's own pass gives.
    """
    short, long = (backbone.render([{"role": "user", "content": probe}]) for probe in PROBES[::3])
    # Whatever the template makes of them, one is padded.
    prompts = [short, [*short, *long]]
    device = backbone.model.device
    alone = [padded([prompt], [0], 0, device) for prompt in prompts]
    together = padded(prompts, range(len(prompts)), backbone.pad, device)
    expected = torch.cat([forward(backbone, batch)[:, -1] for batch in alone])
    if not same_logits(backbone, expected[:1], backbone.model(input_ids=alone[0].ids).logits[:, -1]):
        raise BackboneError(
            "a model must count the positions of a prompt's tokens from 0 on",
            got=f"one of the kind {backbone.model.config.model_type}, whose own pass counts otherwise",
            remedy="use another model",
            where=backbone.name,
        )
    if not same_logits(backbone, forward(backbone, together)[:, -1], expected):
        return False
    if window(backbone) != 0:
        return True
    config = GenerationConfig(
        max_new_tokens=STEPS,
        min_new_tokens=STEPS,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    said = backbone.model.generate(  # type: ignore[operator]
        input_ids=together.ids, attention_mask=together.mask, generation_config=config
    )
    new = said.sequences[:, -STEPS:]
    for step in range(1, STEPS):
        rows = [[*prompt, *reply[:step]] for prompt, reply in zip(prompts, new.tolist(), strict=True)]
        plain = [forward(backbone, padded([row], [0], 0, device))[0, -1] for row in rows]
        if not same_logits(backbone, said.logits[step], torch.stack(plain)):
            return False
    return True
