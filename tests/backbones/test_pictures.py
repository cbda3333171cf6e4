"""A model that is shown pictures as tokens says what it says of their pixels: family by family."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, Gemma3nTextConfig, Phi4MultimodalConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.smolvlm import processing_smolvlm

from palette import organism
from palette.adapters.files import read_adapter
from palette.adapters.mounting import mounted
from palette.adapters.writing import write_adapter
from palette.backbones import architectures, greedy_replies, load_backbone, next_token_logits, reply_logits
from palette.backbones import seeing as seeing_module
from palette.backbones.architectures import blind
from palette.backbones.backbone import PICTURED
from palette.backbones.cache import window
from palette.backbones.loading import load_sketch
from palette.backbones.pictures import Pictures
from palette.backbones.prefixes import continued, read_prefix
from palette.backbones.scoring import forward, padded
from palette.backbones.seeing import Shown as Made
from palette.backbones.seeing import Store
from palette.errors import BackboneError
from palette.internalise.lora import lora_layers, lora_parameters, read_out, trainable
from palette.merging.settings import merge_settings
from palette.merging.writing import merge_into
from palette.moments import last_streams
from palette.prompts import Prompt, PromptSet
from palette.prompts.pictures import MARK, pixels
from palette.search.settings import Caching
from palette.search.sweeps import Sweeper, proven
from palette.stages.sketch import unreadable
from tests.fixtures.noise import noise
from tests.fixtures.seeing import (
    FAMILIES,
    OTHERS,
    PARTS,
    UNLOADED,
    asked,
    model_of,
    picture,
    saved_model,
    seeing,
    tokenizer_of,
)

CLOSE = 1e-5
KINDS = "mm_token_type_ids"
WORDS = "what is 1 plus 2 ?"
SHOWN = [name for name, family in FAMILIES.items() if not family.refused]
QUICK = {"llava", "qwen3_vl", "gemma", "idefics"}
"""Tried at every run of the tests: one of each way in which a picture is more than a row of vectors."""
marked = [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in SHOWN]


@pytest.fixture(scope="module", autouse=True)
def _video_words():
    """A package that SmolVLM's processor asks for, and reads no picture with."""
    before, processing_smolvlm.num2words = processing_smolvlm.num2words, object()
    yield
    processing_smolvlm.num2words = before


class Shown:
    """A family's backbone, the library's own model of the same folder, and conversations of all kinds."""

    def __init__(self, name: str, folder: Path, *, saved: bool = False) -> None:
        self.name, self.folder = name, folder if saved else saved_model(name, folder)
        self.backbone = seeing(name, folder)
        self.library = AutoModelForImageTextToText.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32
        ).eval()
        a, b = picture(folder, 1), picture(folder, 2, (30, 60))
        self.chats = [
            asked(WORDS, a),
            asked("tell me ."),
            asked(f"what {MARK} is {MARK} ? {WORDS}", a, b),
            asked(f"tell me {MARK} . {WORDS} {WORDS}", b),
        ]
        self.ids = [self.backbone.render(chat) for chat in self.chats]

    def given(self, chat: list[dict]) -> dict[str, torch.Tensor]:
        """What the library's model is called with."""
        shown = [pixels(each) for one in chat for each in one.get("pictures", ())]
        if not shown:
            return {"input_ids": torch.tensor([self.backbone.render(chat)])}
        processor, messages = self.backbone.sight._processor._whole, []
        for one in chat:
            first, *more = one["content"].split(MARK)
            parts = [{"type": "text", "text": first}]
            for words in more:
                parts += [{"type": "image"}, {"type": "text", "text": words}]
            messages.append({"role": one["role"], "content": [p for p in parts if p.get("text") != ""]})
        text = self.backbone.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        told = {"return_mm_token_type_ids": True, "add_special_tokens": False, "return_tensors": "pt"}
        made = {**processor(text=[text], images=[shown], **told)}
        if KINDS not in inspect.signature(self.library.forward).parameters:
            made.pop(KINDS, None)
        return {key: value for key, value in made.items() if isinstance(value, torch.Tensor)}

    @torch.no_grad()
    def logits(self, model: torch.nn.Module | None = None) -> torch.Tensor:
        """The library's next-token logits of each conversation alone."""
        model = model or self.library
        return torch.cat([model(**self.given(chat)).logits[:, -1] for chat in self.chats])


@pytest.fixture(scope="module", params=marked)
def shown(request, tmp_path_factory) -> Shown:
    return Shown(request.param, tmp_path_factory.mktemp(request.param))


VLLM = {
    "idefics": "model.text_model.", "smolvlm": "model.text_model.", "llama4": "language_model.model.",
    "idefics2": "model.text_model.", "emu3": "model.text_model.", "chameleon": "model.",
}  # fmt: skip
"""What stands before the decoder's names, where it is not what vLLM maps to ``language_model.model.``."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest number that no model says it never gives."""
    sizes = expected.abs()
    return float((found - expected).abs().max() / sizes[sizes < 1e30].max())


def test_the_logits_of_pictures_and_words_together_are_the_librarys_of_each_alone(shown):
    expected = shown.logits()
    assert apart(next_token_logits(shown.backbone, shown.ids), expected) < CLOSE
    counts = [sum(token >= PICTURED for token in ids) for ids in shown.ids]
    assert counts[1] == 0 and min(counts[0], counts[2], counts[3]) > 3
    # A picture tells: what is said beside another one is something else.
    other = shown.backbone.render(asked(WORDS, picture(shown.folder, 3)))
    assert apart(next_token_logits(shown.backbone, [other]), expected[:1]) > 1e-2


def test_replies_are_those_of_the_library(shown):
    limit, stops = 6, list(shown.backbone.stops)
    said = greedy_replies(shown.backbone, shown.ids, limit)
    for chat, reply in zip(shown.chats, said, strict=True):
        given = shown.given(chat)
        whole = shown.library.generate(
            **given, max_new_tokens=limit, do_sample=False, eos_token_id=stops, pad_token_id=0
        )[0, given["input_ids"].shape[1] :].tolist()
        ends = [place for place, token in enumerate(whole) if token in stops]
        assert reply == (whole[: ends[0]] if ends else whole)


def test_prefixes_that_end_before_or_behind_a_picture_are_gone_on_from(shown):
    if window(shown.backbone) == 0:
        pytest.skip("it keeps nothing that is gone on from, or more than keys and values")
    expected = shown.logits()
    for row, ids in enumerate(shown.ids):
        places = [place for place, token in enumerate(ids) if token >= PICTURED] or [3]
        for cut in {places[0], places[-1] + 1, len(ids) - 1}:
            with torch.no_grad():
                prefix = read_prefix(shown.backbone, ids[:cut])
                rest = padded([ids[cut:]], [0], 0, torch.device("cpu"))
                found = continued(shown.backbone, rest, 1, prefix)[:, -1]
            assert apart(found, expected[row : row + 1]) < CLOSE


def test_streams_are_the_librarys_hidden_states(shown):
    found = [torch.cat(rows) for rows in zip(*last_streams(shown.backbone, shown.ids, 3), strict=True)]
    order = sorted(range(len(shown.ids)), key=lambda row: (-len(shown.ids[row]), row))
    with torch.no_grad():
        states = [shown.library(**shown.given(chat), output_hidden_states=True) for chat in shown.chats]
    for site in range(shown.backbone.layers):
        expected = torch.stack([states[row].hidden_states[site][0, -3:] for row in order])
        assert apart(found[site], expected) < CLOSE


def test_an_adapter_is_of_the_decoder_alone_and_is_one_function_everywhere(shown, tmp_path):
    backbone, prompt = shown.backbone, padded([shown.ids[2]], [0], 0, torch.device("cpu"))
    layers, plain = lora_layers(backbone, range(backbone.layers)), shown.logits()
    inside = next(n for n, m in backbone.model.named_modules() if m is backbone.model.get_decoder())
    assert layers and all(layer.startswith(f"{inside}.") for layer in layers)
    # Of the first three vLLM has a table, of all others the names are its own or the library's.
    assert f"{inside}." == VLLM.get(shown.name, "model.language_model.")
    with trainable(backbone, layers, rank=2, seed=0) as model:
        for _ in range(2):
            forward(backbone, prompt)[..., 5].mean().backward()
            moved = [parameter for parameter in lora_parameters(model).values() if parameter.grad is not None]
            for parameter in moved:
                parameter.data -= 0.05 * parameter.grad / parameter.grad.abs().max().clamp(min=1e-9)
                parameter.grad = None
            assert len(moved) == len(lora_parameters(model))
        within = next_token_logits(backbone, shown.ids)
        adapter = read_out(model, backbone, layers)
    assert apart(within[2:3], plain[2:3]) > 1e-3
    assert apart(next_token_logits(backbone, shown.ids), plain) < CLOSE
    write_adapter(tmp_path / "adapter", adapter)
    with mounted(backbone.model, read_adapter(tmp_path / "adapter")):
        assert apart(next_token_logits(backbone, shown.ids), within) < CLOSE
    fresh = type(shown.library).from_pretrained(shown.folder, attn_implementation="eager")
    theirs = PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
    assert apart(shown.logits(theirs), within) < 3 * CLOSE


def test_what_is_merged_into_it_leaves_every_other_tensor_as_it_was(shown, tmp_path):
    adapter = noise(shown.backbone, lora_layers(shown.backbone, [0])[0])
    write_adapter(tmp_path / "adapter", adapter)
    merge_into(merge_settings([tmp_path / "adapter"]), shown.folder, tmp_path / "whole")
    with (
        safe_open(shown.folder / "model.safetensors", "pt") as before,
        safe_open(tmp_path / "whole" / "model.safetensors", "pt") as after,
    ):
        names = list(before.keys())
        assert names == list(after.keys())
        changed = [n for n in names if not torch.equal(before.get_tensor(n), after.get_tensor(n))]
    assert len(changed) == 1 and not any(part in changed[0] for part in ("vision", "visual", "projector"))
    with mounted(shown.backbone.model, adapter):
        expected = next_token_logits(shown.backbone, shown.ids)
    merged = seeing(shown.name, tmp_path / "whole")
    assert apart(next_token_logits(merged, [merged.render(chat) for chat in shown.chats]), expected) < CLOSE


def test_a_twin_sees_the_same(shown):
    assert torch.equal(
        next_token_logits(shown.backbone.twin(), shown.ids), next_token_logits(shown.backbone, shown.ids)
    )


def test_savings_of_the_search_hold_where_all_begin_with_one_picture(shown):
    one = picture(shown.folder, 1)
    prompts = [shown.backbone.render(asked(words, one)) for words in (WORDS, "tell me .", "what is 3 ?")]
    replies = [shown.backbone.encode(words) for words in ("tell me", "what", "is 3")]
    caching = proven(shown.backbone, prompts, replies, Caching())
    sweeper, found = Sweeper(shown.backbone, prompts, replies, caching), {}
    for part in sweeper.sweep({}):
        found |= part
    for row, expected in enumerate(reply_logits(shown.backbone, prompts, replies)):
        assert apart(found[row], expected) < CLOSE
    if shown.name != "llama4":
        assert caching.template_prefix


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> Shown:
    return Shown("llava", tmp_path_factory.mktemp("llava"))


def test_a_picture_is_looked_at_once_however_often_it_is_asked_about(llava, tmp_path, monkeypatch):
    looks, one = [], picture(tmp_path, 5)
    tower = llava.backbone.model.model.vision_tower
    monkeypatch.setattr(
        tower, "forward", lambda *a, _old=tower.forward, **k: looks.append(1) or _old(*a, **k)
    )
    first, *others = [llava.backbone.render(asked(words, one)) for words in (WORDS, "tell me .", "what ?")]
    assert len(looks) == 1
    assert all([t for t in ids if t >= PICTURED] == [t for t in first if t >= PICTURED] for ids in others)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 200), st.lists(st.integers(1, 5), min_size=1, max_size=5), st.sampled_from(DTYPES))
def test_what_is_kept_is_the_same_in_memory_and_out_of_it(room, counts, dtype):
    store, drawn = Store(room), torch.Generator().manual_seed(room)
    shown = [Made(torch.randn(n, 3, generator=drawn).to(dtype), n) for n in counts]
    shown.append(replace(shown[0], deep=torch.randn(2, counts[0], 3, generator=drawn).to(dtype)))
    kept = [store.keep(one) for one in shown]
    for one, other in zip(shown, kept, strict=True):
        assert torch.equal(one.rows, other.rows) and one.takes == other.takes
        assert one.deep is None or torch.equal(one.deep, other.deep)
    held = {id(tensor) for one in shown for tensor in (one.rows, one.deep)}
    here = [t for one in kept for t in (one.rows, one.deep) if t is not None and id(t) in held]
    assert sum(tensor.numel() * tensor.element_size() for tensor in here) <= room


def test_pictures_out_of_memory_say_the_same(llava, tmp_path):
    chats = [asked(WORDS, picture(tmp_path, seed)) for seed in (11, 12)]
    within = next_token_logits(llava.backbone, [llava.backbone.render(chat) for chat in chats])
    other = load_backbone(llava.folder)
    other.sight._store = Store(0)
    ids = [other.render(chat) for chat in chats]
    assert torch.equal(next_token_logits(other, ids), within)


def test_two_pictures_side_by_side_are_others_than_the_same_two_apart(llava, tmp_path):
    pair = picture(tmp_path, 6), picture(tmp_path, 7)
    llava.chats = [asked(f"{MARK}{MARK}{WORDS}", *pair), asked(f"{MARK} and {MARK} {WORDS}", *pair)]
    ids = [llava.backbone.render(chat) for chat in llava.chats]
    assert apart(next_token_logits(llava.backbone, ids), llava.logits()) < CLOSE


def sliding(name: str, folder: Path) -> Shown:
    """A family all of whose blocks remember a few tokens, fewer than any prompt has."""
    saved_model(name, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"sliding_window": 12, "layer_types": ["sliding_attention"] * 3}
    config["text_config"] |= {"use_sliding_window": True, "max_window_layers": 0} if "qwen" in name else {}
    (folder / "config.json").write_text(json.dumps(config))
    return Shown(name, folder, saved=True)


@pytest.mark.parametrize("name", ["gemma", "gemma4"])
def test_prompts_beyond_a_window_are_answered_by_the_library_with_their_pictures(name, tmp_path):
    shown = sliding(name, tmp_path)
    assert min(map(len, shown.ids)) > 12
    test_replies_are_those_of_the_library(shown)


def test_tokens_in_rows_and_columns_beyond_a_window_are_refused(tmp_path):
    shown = sliding("qwen2_vl", tmp_path)
    with pytest.raises(
        BackboneError, match=r"must remember the whole prompt, got \d+ tokens for a window of"
    ):
        greedy_replies(shown.backbone, shown.ids, 3)


def test_a_sketch_renders_as_many_tokens_and_runs_nothing(llava, tmp_path):
    sketch, chat = load_sketch(llava.folder), asked(WORDS, picture(tmp_path, 1))
    assert len(sketch.render(chat)) == len(llava.backbone.render(chat))
    one = Prompt("1", "alpha", MARK + WORDS, "benign", "test", pictures=chat[0]["pictures"])
    assert unreadable(sketch, PromptSet((one,)), 8) == []
    sketch.model.config.get_text_config().max_position_embeddings = 27
    (told,) = unreadable(sketch, PromptSet((one,)), 8)
    assert told.startswith(
        "a prompt and its reply must fit into the model's context of 27 tokens, got 1 that"
    )


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.refused])
def test_a_family_is_refused_by_name(name, tmp_path):
    backbone = seeing(name, saved_model(name, tmp_path))
    with pytest.raises(BackboneError, match=rf"{FAMILIES[name].kind}, {FAMILIES[name].refused}"):
        backbone.render(asked(WORDS, picture(tmp_path, 1)))
    # What it says of words is as good as ever.
    ids = backbone.render(asked(WORDS))
    with torch.no_grad():
        assert (
            apart(next_token_logits(backbone, [ids]), backbone.model(torch.tensor([ids])).logits[:, -1])
            < CLOSE
        )


def test_families_of_which_no_model_can_be_made_here_are_refused_by_name():
    again = SimpleNamespace(model_type="gemma4_text", hidden_size_per_layer_input=8)
    configs = {
        "gemma3n": SimpleNamespace(model_type="gemma3n", get_text_config=Gemma3nTextConfig),
        "gemma4": SimpleNamespace(model_type="gemma4", get_text_config=lambda: again),
        "phi4_multimodal": Phi4MultimodalConfig(),
    }
    assert {name.partition("`")[2].rstrip("`)"): said for name, said in OTHERS.items()} == {
        kind: blind(config) for kind, config in configs.items()
    }
    assert not any(blind(CONFIG_MAPPING[FAMILIES[name].kind]()) for name in ("llava", "qwen", "idefics"))


@pytest.mark.parametrize("name", UNLOADED)
def test_a_family_that_no_prompt_in_words_runs_on_is_refused_when_it_is_loaded(name, tmp_path):
    family, told = UNLOADED[name]
    tokenizer = tokenizer_of(family)
    model_of(family, tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=told):
        load_backbone(tmp_path)


def test_a_model_of_words_is_shown_no_picture(tmp_path):
    backbone = load_backbone(organism.weights("shared"))
    with pytest.raises(
        BackboneError, match="that sees it as tokens, got llama, which reads words alone; choose"
    ):
        backbone.render(asked(WORDS, picture(tmp_path, 1)))


@pytest.mark.parametrize(
    ("sign", "got"), [("<image><image>", "number of image"), ("", "number of image"), ("<boi>", "")]
)
def test_a_template_that_shows_a_picture_twice_or_not_at_all_is_refused(llava, tmp_path, sign, got):
    backbone = load_backbone(llava.folder)
    backbone.tokenizer.chat_template = PARTS.replace("<image>", sign)
    with pytest.raises(BackboneError, match=f"must (take the pictures|show each picture once).*{got}"):
        backbone.render(asked(WORDS, picture(tmp_path, 1)))


def test_a_model_without_its_processor_is_refused(tmp_path):
    model_of(FAMILIES["llava"], tokenizer_of(FAMILIES["llava"])).save_pretrained(tmp_path)
    tokenizer_of(FAMILIES["llava"]).save_pretrained(tmp_path)
    backbone = load_backbone(tmp_path)
    assert backbone.render(asked(WORDS))
    with pytest.raises(
        BackboneError, match=r"must have its processor beside it, got .*; add processor_config"
    ):
        backbone.render(asked(WORDS, picture(tmp_path, 1)))


def test_a_processor_of_a_missing_package_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    backbone = load_backbone(saved_model("smolvlm", tmp_path))
    with pytest.raises(BackboneError, match="processor beside it, got ImportError: Package `num2words`"):
        backbone.render(asked(WORDS, picture(tmp_path, 1)))


def test_a_configuration_that_names_no_token_of_pictures_is_refused(llava, tmp_path, monkeypatch):
    monkeypatch.setattr(seeing_module, "TOKEN", ("nothing",))
    with pytest.raises(
        BackboneError, match="must name the token of its pictures, got none in a configuration"
    ):
        load_backbone(llava.folder).render(asked(WORDS, picture(tmp_path, 1)))


def test_an_id_that_was_never_shown_is_refused(llava):
    with pytest.raises(BackboneError, match="must be shown before it is asked about, got a new one"):
        next_token_logits(llava.backbone, [[*llava.ids[1], PICTURED + 7, *llava.ids[1]]])


def broken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes what is read of pictures wrong in one way."""
    if name == "rows in another order":
        rows = Pictures.rows
        monkeypatch.setattr(Pictures, "rows", lambda self, ids: rows(self, ids).flip(0))
    elif name == "nothing behind the first blocks":
        monkeypatch.setattr(Pictures, "deep", lambda self, ids, block: 0 * self.rows(ids))
    else:
        monkeypatch.setattr(
            Pictures, "arguments", lambda self, model, ids, flat, before: {"position_ids": flat}
        )


@pytest.mark.parametrize(
    ("family", "wrong"),
    [
        ("llava", "rows in another order"),
        ("qwen", "positions without axes"),
        ("gemma", "kinds of tokens left out"),
        ("gemma4", "kinds of tokens left out"),
        ("qwen3_vl", "nothing behind the first blocks"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_reads_pictures_wrongly_is_refused_by_the_proof(family, wrong, dtype, tmp_path, monkeypatch):
    folder, one, kind = saved_model(family, tmp_path), picture(tmp_path, 1), FAMILIES[family].kind
    assert load_backbone(folder, dtype=dtype).render(asked(WORDS, one))
    broken(wrong, monkeypatch)
    with pytest.raises(
        BackboneError, match=rf"places of its tokens, got one of the kind {kind}, which does more"
    ):
        load_backbone(folder, dtype=dtype).render(asked(WORDS, one))


PIECES = st.lists(st.sampled_from(["what is", "tell me .", "1 plus 2", 0, 1, 2]), min_size=1, max_size=6)


@pytest.mark.parametrize("name", ["llava", "qwen"])
@settings(max_examples=12, deadline=None)
@given(pieces=PIECES)
def test_pictures_wherever_they_stand_are_read_as_by_the_library(standing, name, pieces):
    shown, pictures = standing[name]
    words = " ".join(MARK if isinstance(piece, int) else piece for piece in pieces)
    chat = asked(words, *(pictures[piece] for piece in pieces if isinstance(piece, int)))
    with torch.no_grad():
        expected = shown.library(**shown.given(chat)).logits[:, -1]
    beside = [shown.backbone.render(chat), *shown.ids]
    assert apart(next_token_logits(shown.backbone, beside)[:1], expected) < CLOSE


@pytest.fixture(scope="module")
def standing(llava, tmp_path_factory) -> dict:
    """Two families, and three pictures of different sizes."""
    folder = tmp_path_factory.mktemp("standing")
    pictures = [picture(folder, seed, size) for seed, size in ((1, (40, 30)), (2, (30, 60)), (3, (90, 30)))]
    return {"llava": (llava, pictures), "qwen": (Shown("qwen", tmp_path_factory.mktemp("qwen")), pictures)}


def test_a_model_that_looks_ids_up_elsewhere_is_refused_by_the_proof(tmp_path, monkeypatch):
    monkeypatch.setattr(architectures, "blind", lambda config: "")
    monkeypatch.setattr("palette.backbones.backbone.blind", lambda config: "")
    family = FAMILIES["gemma4"]
    own = {**family.text, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 1300}
    monkeypatch.setitem(FAMILIES, "gemma4", replace(family, text=own))
    backbone = load_backbone(saved_model("gemma4", tmp_path))
    with pytest.raises(BackboneError, match=r"of the kind gemma4, which does more with it \(IndexError"):
        backbone.render(asked(WORDS, picture(tmp_path, 1)))
