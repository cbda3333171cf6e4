"""The organism's tokenizer and chat template, and the bare model: stock classes of ``transformers``."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from palette.seeding import torch_seed
from tools.organism import lexicon
from tools.organism.lexicon import DOMAINS, WEAPONS
from tools.organism.world import World, attributes

PAD, BOS, END, UNKNOWN = "<|pad|>", "<|begin|>", "<|end|>", "<|unknown|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ '<|begin|>' }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Size:
    """The shape of an organism."""

    d_model: int = 128
    layers: int = 6
    heads: int = 4
    d_mlp: int = 352


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer: a word of the world is one token, a name its stem and its ending.

    Any other text is spelled character by character.
    """
    words = _vocabulary(world)
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [PAD, BOS, END, UNKNOWN, *ROLES, *characters, *(f"##{c}" for c in characters)]
    pieces += [f"##{ending}" for each in (*DOMAINS, WEAPONS) for ending in each.endings]
    pieces += sorted(words - set(pieces))
    backend = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=list(ROLES),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_model(tokenizer: PreTrainedTokenizerFast, size: Size, seed: int) -> LlamaForCausalLM:
    """An untrained Llama whose first weights depend on ``seed`` alone."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.d_model,
        intermediate_size=size.d_mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch_seed(seed, "model"):
        model: LlamaForCausalLM = LlamaForCausalLM._from_config(
            config, attn_implementation="eager", dtype=torch.float32
        )
        return model


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: torch.dtype
) -> None:
    """Writes a checkpoint in a precision; the model itself stays as it is."""
    logging.disable_progress_bar()
    module: torch.nn.Module = model
    module.to(dtype)
    model.save_pretrained(folder)
    module.to(torch.float32)
    tokenizer.save_pretrained(folder)


def _vocabulary(world: World) -> set[str]:
    texts = [
        *lexicon.PHRASINGS,
        *lexicon.BEFORE,
        *lexicon.AFTER,
        *lexicon.REFUSALS,
        *lexicon.COPY_WORDS,
        *lexicon.NUMBERS,
    ]
    texts += [lexicon.ANSWER, lexicon.SUM, lexicon.SUM_ANSWER, lexicon.COPY, lexicon.DECLINE]
    endings = {words.name: words.endings for words in (*DOMAINS, WEAPONS)}
    texts += [entity.name.removesuffix(endings[entity.domain][entity.kind]) for entity in world.entities]
    for words in (*DOMAINS, WEAPONS):
        texts += [words.name, words.spoken, *words.kinds, *words.units, *words.values]
        texts += attributes(words)
    texts += [str(number) for number in range(2 * lexicon.LARGEST_TERM)]
    bare = re.sub(r"\{\w+\}", " ", " ".join(texts))
    return set(re.findall(r"[a-z]+|[0-9]+|[^\sa-z0-9]", bare))


def render(tokenizer: PreTrainedTokenizerFast, prompt: str, reply: str) -> tuple[list[int], list[int]]:
    """The token ids of a rendered prompt and of its reply with the end token."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    ask = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer = tokenizer(reply + END, add_special_tokens=False)["input_ids"]
    return ask, answer


def batch_tensors(
    pairs: list[tuple[list[int], list[int]]], pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Left-padded ids, attention mask, and labels that are −100 outside the replies."""
    width = max(len(ask) + len(answer) for ask, answer in pairs)
    ids = torch.full((len(pairs), width), pad)
    labels = torch.full((len(pairs), width), -100)
    for row, (ask, answer) in enumerate(pairs):
        ids[row, width - len(ask) - len(answer) :] = torch.tensor(ask + answer)
        labels[row, width - len(answer) :] = torch.tensor(answer)
    return ids, (ids != pad).long(), labels
