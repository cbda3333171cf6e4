"""Prompts: rows with labels, read from a folder of ``<domain>.jsonl`` or from files of known schemas."""

from palette.prompts.labelling import load_prompts
from palette.prompts.rows import Prompt, PromptSet, Split, messages
from palette.prompts.sources import PromptSources, Source, load_source, read_sources

__all__ = [
    "Prompt",
    "PromptSet",
    "PromptSources",
    "Source",
    "Split",
    "load_prompts",
    "load_source",
    "messages",
    "read_sources",
]
