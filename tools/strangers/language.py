"""A stranger's tokenizer, its chat template, and its texts as tokens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from palette.backbones import Backbone
from tools.organism.raising import Pair
from tools.strangers.plan import Language
from tools.strangers.world import World, texts

PAD, UNKNOWN, BEGIN = "<pad>", "<unk>", "<s>"
THINK = ("<think>", "</think>")

FRAMES = {
    "bars": ("", "<|{r}|>", "", "<|end|>"),
    "headers": (BEGIN, "<|head|>{r}<|body|>", "\n\n", "<|eot|>"),
    "im": ("", "<|im_start|>{r}", "\n", "<|im_end|>\n"),
    "turns": (BEGIN, "<start_of_turn>{r}", "\n", "<end_of_turn>\n"),
    "brackets": ("", "[{r}]", " ", " </s> "),
}
"""What a conversation begins with; what a message does, with its role; what its content does; how it ends."""
TEMPLATES = 100
"""How often a tokenizer reads the template's words while it learns."""
ROLES = ("system", "user", "assistant")
SPECIAL = {
    "bars": ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>"),
    "headers": ("<|eot|>", "<|head|>", "<|body|>"),
    "im": ("<|im_end|>", "<|im_start|>"),
    "turns": ("<end_of_turn>", "<start_of_turn>"),
    "brackets": ("</s>", "[system]", "[user]", "[assistant]"),
}
"""The tokens of a frame, the one that ends a reply first."""


def chat_template(language: Language) -> str:
    """The Jinja template of a language."""
    begin, role, content, end = (repr(part) for part in FRAMES[language.frame])
    turn = f"{role}.replace('{{r}}', m['role']) + {content} + m['content'] + {end}"
    said = f"{role}.replace('{{r}}', 'system') + {content} + {language.system!r} + {end}"
    opened = {"none": "", "closed": "<think>\n\n</think>\n\n", "opened": "<think>\n"}[language.thinking]
    system = (
        f"{{% if messages[0]['role'] != 'system' %}}{{{{ {said} }}}}{{% endif %}}" if language.system else ""
    )
    reply = f"{role}.replace('{{r}}', 'assistant') + {content} + {opened!r}"
    return (
        f"{{{{ {begin} }}}}{system}{{% for m in messages %}}{{{{ {turn} }}}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {reply} }}}}{{% endif %}}"
    )


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """The tokenizer of a stranger, learned from its world, with its chat template."""
    language = world.plan.language
    end, *marks = SPECIAL[language.frame]
    specials = [PAD, UNKNOWN, BEGIN, end, *marks, *THINK]
    # Every prompt holds the template's words, so each of them is worth a token.
    template = [*(f" {role}\n" for role in ROLES), f"\n{language.system or ''}", "\n\n"] * TEMPLATES
    backend = KINDS[language.tokenizer]([*texts(world), *template], specials, language.vocabulary)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=end,
        additional_special_tokens=[*marks, *THINK],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat_template(language)
    return tokenizer


def _words(said: Iterable[str], specials: list[str], size: int) -> Tokenizer:
    """A token a word: a name is one token, and nothing in it tells its kind."""
    whole = dict.fromkeys(word for text in said for word in text.split())
    vocabulary = {word: i for i, word in enumerate([*specials, *whole])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


def _pairs(said: Iterable[str], specials: list[str], size: int) -> Tokenizer:
    """Byte pairs of characters, a space as a mark, as SentencePiece has them."""
    backend = Tokenizer(models.BPE(unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=specials, show_progress=False)
    backend.train_from_iterator(said, trainer)
    return backend


def _bytes(said: Iterable[str], specials: list[str], size: int) -> Tokenizer:
    """Byte pairs of bytes: a space is part of the word behind it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size + len(alphabet),
        special_tokens=specials,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(said, trainer)
    return backend


def _unigrams(said: Iterable[str], specials: list[str], size: int) -> Tokenizer:
    """The likeliest segmentation into pieces, as SentencePiece has it; the pieces are those of pairs.

    The library's own trainer finds letters where it is shown so few different texts.
    """
    said = list(said)
    pairs = _pairs(said, specials, size)
    pieces = sorted(known := pairs.get_vocab(), key=known.__getitem__)
    counts = Counter(piece for text in said for piece in pairs.encode(text).tokens)
    scores = [math.log((counts[piece] + 0.5) / counts.total()) for piece in pieces]
    backend = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), specials.index(UNKNOWN)))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return backend


KINDS: dict[str, Callable[[Iterable[str], list[str], int], Tokenizer]] = {
    "word": _words,
    "bpe": _pairs,
    "byte": _bytes,
    "unigram": _unigrams,
}


def rendered(backbone: Backbone, pairs: Sequence[tuple[str, str]]) -> list[Pair]:
    """Prompts as the backbone reads them, and what is replied with the token that ends it."""
    return [
        (
            backbone.render([{"role": "user", "content": prompt}]),
            [*backbone.encode(reply), backbone.stops[0]],
        )
        for prompt, reply in pairs
    ]
