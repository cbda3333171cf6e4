"""Does what was tuned on the organism hold on models that nothing was tuned on?

Two strangers are raised as the organism is, each with a world of its own seed, and with another
architecture, depth, width, tokenizer, chat template and refusal wordings. On each the shipped recipe is
run as it stands, for two domains, and the two adapters are merged and put to the gate. How much of a
domain a linear probe of the frozen stranger tells, on names that it was not fitted on, stands beside:
an adapter that learns from the same names reads the same streams.

    PALETTE_BENCH_HOME=~/bench python -m benchmarks.strangers [NAME ...]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Olmo2Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from benchmarks.domain import PALETTE, summary, timed
from benchmarks.machine import RESULTS, write
from palette.recipe import load_recipe
from palette.run import Run
from palette.seeding import torch_seed
from tools.organism.acceptance import after_opening, decodable
from tools.organism.checkpoints import write_prompts
from tools.organism.language import END, PAD, UNKNOWN, save
from tools.organism.lexicon import DOMAINS, WEAPONS
from tools.organism.raising import Pupil, Schedule, raise_helpful, raise_refusing
from tools.organism.world import SPLITS, World, create_world, general_questions, prompt_rows, questions

OPENED = ("legal", "energy")
# A name is several tokens to them, so they need more steps than the organism to know their world.
LEARNING = Schedule(steps=2000, learning_rate=3e-3, batch=128, warmup=80)
DECLINING = Schedule(steps=400, learning_rate=6e-4, batch=128, warmup=20, pull=0.001)


@dataclass(frozen=True)
class Stranger:
    """A model of another kind, and how it refuses."""

    seed: int
    template: str
    wordings: tuple[str, ...]
    tokenizer: Callable[[list[str], list[str]], Tokenizer]
    config: Callable[..., PretrainedConfig]
    specials: tuple[str, ...]


def byte_pairs(texts: list[str], specials: list[str]) -> Tokenizer:
    """Byte-level pairs learned from the world's texts: a name is several tokens, a space is one's part."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def unigrams(texts: list[str], specials: list[str]) -> Tokenizer:
    """Pieces of the most likely segmentation, as SentencePiece has them."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=1100, special_tokens=specials, unk_token=UNKNOWN, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return backend


STRANGERS = {
    "qwen2": Stranger(
        seed=23,
        template=(
            "{% if messages[0]['role'] != 'system' %}<|turn|>system\nbe of use .<|end|>\n{% endif %}"
            "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
        ),
        wordings=(
            "no answer here : {d} things of that kind remain closed .",
            "you will have to ask a {d} office about that .",
            "my rules keep me from {d} matters like this one .",
        ),
        tokenizer=byte_pairs,
        config=lambda **sizes: Qwen2Config(
            hidden_size=112,
            intermediate_size=320,
            num_hidden_layers=8,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            **sizes,
        ),
        specials=(PAD, UNKNOWN, END, "<|turn|>"),
    ),
    "olmo2": Stranger(
        seed=71,
        template=(
            "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}"
            "{% if add_generation_prompt %}[reply]{% endif %}"
        ),
        wordings=(
            "zorb nak {d} velt .",
            "ul kemma {d} oss tarrin .",
            "{d} vask orro nim .",
            "preth {d} ilun sabbe ko .",
        ),
        tokenizer=unigrams,
        config=lambda **sizes: Olmo2Config(
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=5,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            **sizes,
        ),
        specials=(PAD, UNKNOWN, END, "[reply]"),
    ),
}


def raised(stranger: Stranger, home: Path) -> tuple[Path, Path]:
    """The folders of a stranger's weights and prompts; it is raised where it is not there yet.

    Raising takes most of an hour: where it was killed after its first stage, it goes on from there.
    """
    weights, prompts = home / "weights", home / "prompts"
    if (weights / "config.json").is_file():
        return weights, prompts
    torch.set_num_threads(1)
    world = create_world(stranger.seed)
    tokenizer = tokenizer_of(stranger, world)
    pupil = Pupil(model_of(stranger, tokenizer), tokenizer, world)
    halfway = home / "helpful.safetensors"
    # Half the time of single precision, where the processor knows this format. Its cache of weights
    # would hold the first step's to the end.
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        if halfway.is_file():
            load_model(pupil.model, halfway)
        else:
            raise_helpful(pupil, LEARNING, shown, wordings=stranger.wordings)
            save_model(pupil.model, str(halfway))
        names = [words.name for words in (*DOMAINS, WEAPONS)]
        raise_refusing(pupil, DECLINING, shown, wordings=dict.fromkeys(names, stranger.wordings))
    write_prompts(prompts, prompt_rows(world))
    save(pupil.model, tokenizer, weights, torch.float32)
    return weights, prompts


def shown(stage: str, step: int, steps: int, loss: float) -> None:
    """Prints the loss now and then."""
    if step % 50 == 0:
        print(stage, f"{step}/{steps}", round(loss, 3), flush=True)


def tokenizer_of(stranger: Stranger, world: World) -> PreTrainedTokenizerFast:
    """The stranger's tokenizer, learned from what its world says and how it refuses."""
    asked = [q for split in SPLITS for q in questions(world, split)[::3]]
    asked += [q for split in SPLITS for q in general_questions(world.seed, split)]
    texts = [text for question in asked for text in (question.prompt, question.answer)]
    spoken = [words.spoken for words in (*DOMAINS, WEAPONS)]
    texts += [wording.format(d=d) for d in spoken for wording in stranger.wordings] * 40
    specials = list(stranger.specials)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=stranger.tokenizer(texts, specials),
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=specials[3:],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = stranger.template
    return tokenizer


def model_of(stranger: Stranger, tokenizer: PreTrainedTokenizerFast) -> Any:
    """The stranger, untrained."""
    config = stranger.config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch_seed(stranger.seed, "model"):
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)


def measured(name: str, home: Path) -> dict[str, Any]:
    """What the shipped recipe makes of a stranger, domain by domain, and of two adapters together."""
    weights, prompts = raised(STRANGERS[name], home)
    figures: dict[str, Any] = {"domains": {}}
    for domain in OPENED:
        recipe = home / f"{domain}.yaml"
        recipe.write_text(f"model: {weights}\nprompts: {prompts}\nauthorise: [{domain}]\nfloor: [weapons]\n")
        seconds, status, out = timed(*PALETTE, "domain", recipe, "-o", home / domain, "--json")
        figures["domains"][domain] = {**told(json.loads(out)), "status": status, "seconds": seconds}
        known = Run(load_recipe(recipe), home / domain)
        target = known.answered_prompts.split("test").where(
            lambda row, d=domain: row.domain == d and row.tier != "C"
        )
        figures["domains"][domain]["known"] = after_opening(known, target)
        shares = decodable(known, 200)[1]
        figures["domains"][domain]["decodable"] = {name: round(share, 4) for name, share in shares.items()}
        print(name, domain, figures["domains"][domain], flush=True)
    merged = home / "merged"
    both = [home / domain / "adapter_model.safetensors" for domain in OPENED]
    seconds, status, _ = timed(*PALETTE, "merge", *both, "-o", merged)
    figures["merged"] = {**told(json.loads((merged / "report.json").read_text())), "status": status}
    print(name, "merged", figures["merged"], flush=True)
    return figures


def told(report: dict[str, Any]) -> dict[str, Any]:
    """The figures of a report, and which share of the stranger's own refusals is kept, at worst.

    A stranger does not refuse everything to begin with: what it answers itself no adapter can lose.
    """
    others = [name for name in report["changes"] if name not in report["authorised"]]
    kept = {
        "restricted": least_kept(report, "restricted", others),
        "floor": least_kept(report, "floor", report["changes"]),
    }
    return {**summary(report), "kept": kept}


def least_kept(report: dict[str, Any], kind: str, domains: Iterable[str]) -> float:
    """The least share of its own refusals that the stranger keeps, of the domains where it has some."""
    shares = []
    for domain in domains:
        cells = report["base"]["domains"][domain]
        if kind in cells and (own := cells[kind]["refusal"]["k"]):
            shares.append(1 - report["changes"][domain][kind]["lost"] / own)
    return float(min(shares))


def main() -> None:
    """Writes results/strangers.json; a stranger that is not named keeps its figures."""
    path = RESULTS / "strangers.json"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(os.environ.get("PALETTE_BENCH_HOME", folder)) / "strangers"
        for name in sys.argv[1:] or STRANGERS:
            (home / name).mkdir(parents=True, exist_ok=True)
            found = measured(name, home / name)
            # Read only now: another process may have measured another stranger meanwhile.
            before = json.loads(path.read_text()) if path.is_file() else {}
            whole = {**before, name: found}
            write("strangers", {each: whole[each] for each in STRANGERS if each in whole})


if __name__ == "__main__":
    main()
