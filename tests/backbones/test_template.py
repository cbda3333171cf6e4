from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from palette.backbones import Backbone, load_backbone
from palette.backbones.loading import load_sketch
from palette.backbones.template import ChatTemplate
from palette.errors import BackboneError
from palette.recipe import Recipe
from palette.stages.check import check

TOKENS = ("<unk>", "<pad>", "word", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|end|>", "<turn>", ":")
PAD, WORD, EOS, IM_END, END = 1, 2, 4, 6, 7

ALL = "{%% for m in messages %%}%s{%% endfor %%}"
CHATML = ALL % "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
SPACED = ALL % "{{ m['role'] }} : {{ m['content'] }} </s>"
ENDLESS = ALL % "{{ m['role'] }} : {{ m['content'] }}\n"
NO_REPLY = "{% if messages|length > 1 %}{{ raise_exception('one turn') }}{% endif %}" + CHATML
LOWERED = ALL % "{{ m['role'] }} : {{ m['content']|lower }}<|end|>"
SEEN = ALL % "{{ m['content'][0]['text'] }}<|im_end|>\n"
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + CHATML
)
SILENT = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}<|im_end|>{% endfor %}"
OPENING = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

USER = {"role": "user", "content": "word"}


def tokenizer_of(template: str, eos: str | None = "</s>", pad: str = "<pad>") -> PreTrainedTokenizerFast:
    """Ten tokens, most of them special."""
    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = [token for token in TOKENS if token[0] == "<" and token != "<unk>"]
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token=pad, eos_token=eos)
    made.add_special_tokens({"additional_special_tokens": marks})
    made.chat_template = template + OPENING
    return made


def backbone_of(
    template: str = CHATML,
    generation: int | list[int] | None = EOS,
    config: int | None = EOS,
    eos: str | None = "</s>",
    pad: str = "<pad>",
) -> Backbone:
    """A tiny model whose generation config, model config and tokenizer each name their own end."""
    size = {"vocab_size": len(TOKENS), "hidden_size": 8, "intermediate_size": 8}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(**size, **heads, eos_token_id=config, bos_token_id=3)).eval()
    model.generation_config = GenerationConfig(eos_token_id=generation)
    return Backbone(model.requires_grad_(False), tokenizer_of(template, eos, pad), "tiny", "0" * 64)


class TestStops:
    def test_sources_that_agree_give_their_one_token(self):
        assert backbone_of(SPACED).stops == (EOS,)

    def test_the_templates_end_counts_though_the_generation_config_lacks_it(self):
        assert backbone_of(CHATML).stops == (IM_END, EOS)

    def test_the_templates_end_comes_first_among_those_of_the_generation_config(self):
        assert backbone_of(CHATML, [EOS, END, IM_END]).stops == (IM_END, EOS, END)

    def test_without_an_end_in_the_template_the_generation_config_comes_first(self):
        assert backbone_of(ENDLESS, [END, EOS]).stops == (END, EOS)
        assert backbone_of(NO_REPLY, [END, EOS]).stops == (END, EOS)

    def test_the_model_and_the_tokenizer_add_theirs(self):
        assert backbone_of(ENDLESS, None, END).stops == (END, EOS)
        assert backbone_of(ENDLESS, None, None).stops == (EOS,)

    def test_a_default_that_is_an_ordinary_word_ends_nothing(self):
        assert LlamaConfig().eos_token_id == WORD
        assert backbone_of(CHATML, IM_END, WORD, eos=None).stops == (IM_END,)

    def test_a_token_that_also_pads_ends_a_reply(self):
        backbone = backbone_of(SPACED, None, None, pad="</s>")
        assert backbone.pad == EOS
        assert backbone.stops == (EOS,)

    @pytest.mark.parametrize(("template", "end"), [(LOWERED, END), (SEEN, IM_END), (ENDLESS, None)])
    def test_the_end_is_read_from_templates_of_any_form(self, template, end):
        assert ChatTemplate(tokenizer_of(template), "tiny").ending == end

    def test_a_model_without_any_end_is_refused(self):
        with pytest.raises(BackboneError) as caught:
            _ = backbone_of(ENDLESS, None, None, eos=None).stops
        assert str(caught.value) == (
            "a chat model must have a token that ends a reply, got none; "
            "set eos_token_id in its generation_config.json (tiny)"
        )

    @given(
        st.sampled_from([CHATML, SPACED, ENDLESS, LOWERED]),
        st.none() | st.sampled_from([EOS, END]) | st.lists(st.sampled_from([EOS, IM_END, END]), min_size=1),
        st.none() | st.integers(0, len(TOKENS) - 1),
        st.sampled_from(["</s>", "<|end|>"]),
    )
    def test_every_source_is_heard_once_and_the_template_first(self, template, generation, config, eos):
        backbone = backbone_of(template, generation, config, eos)
        stops, ending = backbone.stops, backbone.template.ending
        stated = [generation] if isinstance(generation, int) else (generation or [])
        assert len(stops) == len({*stops})
        assert {*stated, backbone.tokenizer.eos_token_id} <= {*stops}
        assert stops[0] == (ending if ending is not None else [*stated, *stops][0])
        assert {*stops} - {config} <= {*stated, ending, backbone.tokenizer.eos_token_id}
        assert WORD not in stops


def with_system(template: str, system: str = "word word") -> ChatTemplate:
    return ChatTemplate(tokenizer_of(template), "tiny", system=system)


class TestSystem:
    def test_it_stands_before_a_conversation_that_has_none(self):
        said = [{"role": "system", "content": "word word"}, USER]
        assert with_system(CHATML).render([USER]) == with_system(CHATML, "").render(said)

    def test_a_conversations_own_one_is_kept(self):
        own = [{"role": "system", "content": "word"}, USER]
        assert with_system(CHATML).render(own) == with_system(CHATML, "").render(own)

    def test_without_one_nothing_is_added(self):
        assert with_system(CHATML, "").framed([USER]) == [USER]

    @pytest.mark.parametrize("template", [CHATML, LOWERED, SEEN])
    def test_a_template_that_shows_it_is_taken(self, template):
        assert with_system(template, "Word\n word").require_system() is None

    @pytest.mark.parametrize(
        ("template", "got"),
        [(NO_SYSTEM, "TemplateError: System role not supported"), (SILENT, "a rendering without it")],
    )
    def test_a_template_that_takes_none_is_refused(self, template, got):
        with pytest.raises(BackboneError) as caught:
            with_system(template).require_system()
        assert str(caught.value) == (
            f"a chat template must show a recipe's system prompt, got {got}; "
            "leave system out, or put its words into the prompts (tiny)"
        )
        assert with_system(template, "").require_system() is None

    def test_loading_refuses_it_and_check_says_so(self, tmp_path):
        backbone = backbone_of(NO_SYSTEM)
        backbone.model.save_pretrained(tmp_path)
        backbone.tokenizer.save_pretrained(tmp_path)
        for load in (load_backbone, load_sketch):
            assert load(tmp_path).system == ""
            with pytest.raises(BackboneError, match="must show a recipe's system prompt, got TemplateError"):
                load(tmp_path, system="Be brief.")
        recipe = Recipe(model=str(tmp_path), authorise=("medical",), system="Be brief.")
        (error,) = check(recipe, tmp_path / "run")["errors"]
        assert error.startswith("a chat template must show a recipe's system prompt, got TemplateError")


DATES = {
    "%d %b %Y": "26 Jul 2024",
    "%Y-%m-%d": "2024-07-26",
    "%B %-d, %Y": "July 26, 2024",
    "%A %H:%M": "Friday 00:00",
}


def dated(form: str, rest: str = CHATML) -> PreTrainedTokenizerFast:
    asks = f"{{% if strftime_now is defined %}}{{{{ strftime_now('{form}') }}}}{{% endif %}}|"
    return tokenizer_of(asks + rest)


@pytest.mark.parametrize("moment", ["2026-02-03", "2031-12-24"])
@pytest.mark.parametrize("form", DATES)
def test_a_template_that_says_the_date_says_the_same_on_every_day(monkeypatch, moment, form):
    day = datetime.fromisoformat(moment)
    clock = type("Clock", (), {"now": staticmethod(lambda: day)})
    monkeypatch.setattr(chat_template_utils, "datetime", clock)
    asked, one = [{"role": "user", "content": "why?"}], dated(form)
    theirs = one.apply_chat_template(asked, tokenize=False)
    assert theirs.startswith(f"{day.strftime(form)}|"), "the library's own date is today's"
    ours = ChatTemplate(one, "dated")._filled(asked, tokenize=False, opened=False)
    assert ours == DATES[form] + theirs.removeprefix(day.strftime(form))


@settings(max_examples=30, deadline=None)
@given(st.text("\n \t-", max_size=6), st.booleans())
def test_a_still_clock_changes_nothing_else(space, opens):
    """Jinja trims white space around tags, and so around what is put before a template."""
    rest = space + (CHATML if opens else ALL % "{{ m['content'] }}") + "{# strftime_now #}"
    one, asked = tokenizer_of(rest), [{"role": "user", "content": "why?"}]
    ours = ChatTemplate(one, "clock")
    assert ours._frozen is not None
    assert ours._filled(asked, tokenize=False, opened=False) == one.apply_chat_template(asked, tokenize=False)
