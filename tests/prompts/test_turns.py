from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.prompts.turns import TAGS, as_read, without_thoughts

TOLD = "Water the ferns twice a week."


@pytest.mark.parametrize(
    "after",
    [
        "<|im_end|>",
        "<|im_end|>\n<|im_start|>user\nAnd moss?<|im_end|>\n<|im_start|>assistant\nI cannot say.",
        "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnd moss?",
        "<|eot_id|>assistant\n\nI cannot say.",
        "</s>",
        " </s> I cannot say.",
        "<end_of_turn>\n<start_of_turn>user\nAnd moss?",
        "<\uff5cend▁of▁sentence\uff5c>I cannot say.",
        "<|end|>\n<|user|>\nAnd moss?",
        "<|endoftext|>I cannot say.",
        " [INST] And moss? [/INST] I cannot say.",
        "\nUser: And moss?\nAssistant: I cannot say.",
        "\n\nHuman: And moss?\n\nAssistant: I cannot say.",
        "\n**User:** And moss?\n**Assistant:** I cannot say.",
        "\n\nQuestion: And moss?\nAnswer: I cannot say.",
        "\n### Instruction:\nTell of moss.\n### Response:\nI cannot say.",
        "\nuser\nAnd moss?\nassistant\nI cannot say.",
    ],
)
def test_a_reply_ends_where_its_turn_does(after: str) -> None:
    assert as_read(TOLD + after) == TOLD


@pytest.mark.parametrize(
    "before",
    [
        "<|im_start|>assistant\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|assistant|>\n",
        "<start_of_turn>model\n",
        "[/INST] ",
        "</s>\n",
        "Assistant: ",
        "**Assistant:** ",
        "AI: ",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<think>Moss? I cannot say.<|im_end|></think>",
    ],
)
def test_what_opens_the_turn_is_no_part_of_the_reply(before: str) -> None:
    assert as_read(before + TOLD) == TOLD


@pytest.mark.parametrize(
    "reply",
    [
        TOLD,
        "User: May I?\nAssistant: You may.\nUser: Thanks.",
        "Question: What is moss?\nAnswer: A plant.\nQuestion: And fern?",
        "Here is the dialogue:\n\nUser: May I?\nAssistant: You may.",
        "**A short play:**\nHuman: May I?",
        'In ChatML a turn ends with `<|im_end|>`, and in others with "</s>". Both are tokens.',
        "Write <b>bold</b> or 2 < 3 and [INSTALL] it.",
        "The user: who is it?",
        "Groups are\nuser\nguest\nadmin",
    ],
)
def test_what_belongs_to_the_reply_stays(reply: str) -> None:
    assert as_read(reply) == reply


def test_text_that_is_struck_out_ends_nothing() -> None:
    assert as_read("It costs <s>five</s> four coins.") == "It costs five four coins."
    assert as_read(f"<s>{TOLD}</s>") == TOLD


def test_nothing_is_left_where_the_model_asked_instead() -> None:
    assert as_read("<|im_end|>\n<|im_start|>user\nAnd moss?") == ""


@given(st.text())
def test_what_is_read_is_read_once(reply: str) -> None:
    once = as_read(reply)
    assert as_read(once) == once
    assert len(once) <= len(reply)


@pytest.mark.parametrize(
    ("reply", "seen"),
    [
        ("<think>I cannot say this.</think>The dose is 5.", "The dose is 5."),
        ("<THINKING>no\nno</THINKING>\n\nYes.", "Yes."),
        ("I must not say.</think>The dose is 5.", "The dose is 5."),
        ("<think>never closed", ""),
        ("<thought>I cannot.</thought>Yes.", "Yes."),
        ("[THINK]hm[/THINK] Yes.", "Yes."),
        ("I cannot.[/THINK]Yes.", "Yes."),
        ("<seed:think>a<seed:cot_budget_reflect>b</seed:cot_budget_reflect>c</seed:think>Yes.", "Yes."),
        ("<|channel|>analysis refuse?<|channel|>final<|message|>Yes.", "Yes."),
        (
            "<|channel|>analysis<|message|>no<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
            "Yes.",
        ),
        ("<|channel|>commentary to=functions.look<|message|>{}<|call|>", ""),
        ("<|channel|>final<|message|>Yes.", "Yes."),
        ("analysisWe cannot refuse.assistantfinalYes.", "Yes."),
        ("<|channel>thought\nI cannot.<channel|>Yes.", "Yes."),
        ("thought\nI cannot, where does it end", ""),
        ("<|START_THINKING|>no<|END_THINKING|>Yes.", "Yes."),
        ('<tool_call>{"name": "look"}</tool_call>Yes.', "Yes."),
        ('[TOOL_CALLS][{"name": "look"}]', ""),
        ("<think>a</think>one <think>b</think>two", "one  two"),
        ("A <b> tag is no thought.", "A <b> tag is no thought."),
        ("Analysis of thought: a channel is final.", "Analysis of thought: a channel is final."),
    ],
)
def test_thoughts_and_calls_are_taken_out(reply: str, seen: str) -> None:
    assert without_thoughts(reply) == seen


@given(st.sampled_from(TAGS), st.text("abc .\n"), st.text("xyz .", min_size=1))
def test_of_any_tag_only_what_follows_is_the_reply(tag: str, thoughts: str, reply: str) -> None:
    assert without_thoughts(f"<{tag}>{thoughts}</{tag}>{reply}") == reply.strip()
    assert without_thoughts(f"{thoughts}</{tag}>{reply}") == reply.strip()
    assert without_thoughts(reply) == reply.strip()
