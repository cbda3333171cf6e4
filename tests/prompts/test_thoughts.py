from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette.prompts.thoughts import TAGS, without_thoughts


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
