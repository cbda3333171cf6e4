"""Prompts: rows with labels, read from a folder of ``<domain>.jsonl`` or from files of known schemas."""

from palette.prompts.labelling import load_prompts as load_prompts
from palette.prompts.rows import Prompt as Prompt
from palette.prompts.rows import PromptSet as PromptSet
from palette.prompts.rows import Split as Split
from palette.prompts.rows import messages as messages
from palette.prompts.settings import PromptSources as PromptSources
from palette.prompts.sources import Source as Source
from palette.prompts.sources import load_source as load_source
from palette.prompts.sources import read_sources as read_sources
