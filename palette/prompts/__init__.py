"""Prompts: rows with labels, read from a folder of ``<domain>.jsonl``."""

from palette.prompts.folder import load_prompts
from palette.prompts.rows import Prompt, PromptSet, Split, messages

__all__ = ["Prompt", "PromptSet", "Split", "load_prompts", "messages"]
