"""A chat template: how conversations become tokens, what ends a turn, and a system prompt before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from palette.errors import BackboneError
from palette.prompts.pictures import MARK
from palette.settings import Thinking

PROBES = ("0", "Why?", "one\ntwo", "Tell me a story")
"""Messages of nothing in common, from whose renderings the shared last tokens are read."""

NO_THINKING = {"enable_thinking": False, "thinking": False}
"""What chat templates call the switch; a template without one reads neither."""

OPENED, CLOSED = "<think>", "</think>"

CLOCK, DAY, DIRECTIVES = "strftime_now", datetime(2024, 7, 26), "aAbBdHIjmMpSyY"
"""What templates ask for today's date, and what they are told, so that a prompt is the same on every day."""

Messages = list[dict[str, Any]]


def as_parts(messages: Messages) -> Any:
    """Messages as templates of models that see read them: each has parts, texts and pictures."""
    return [{"role": one["role"], "content": _parts(one["content"])} for one in messages]


def _parts(content: str) -> list[dict[str, str]]:
    """A message's words, and between them a picture for each mark."""
    first, *more = content.split(MARK)
    parts = [{"type": "text", "text": first}]
    for words in more:
        parts += [{"type": "image"}, {"type": "text", "text": words}]
    return [part for part in parts if part["type"] == "image" or part["text"]] or parts


def message(role: str, words: str) -> dict[str, Any]:
    """One message of a conversation."""
    return {"role": role, "content": words}


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer's chat template, with what a run lays over it."""

    tokenizer: PreTrainedTokenizerBase
    name: str
    """The backbone's, for errors."""
    thinking: Thinking = "closed"
    system: str = ""
    """What stands before every conversation that has no system message of its own."""

    def render(self, messages: Messages) -> list[int]:
        """The token ids of a conversation, ready for the reply's first token.

        Raises:
            BackboneError: if the template does not take the conversation, in its own words.
        """
        framed, form = self.framed(messages), self._form
        try:
            ids = self._filled(form(framed), tokenize=True)["input_ids"]
        except Exception as error:  # A template may fail in any way, and tells why in its own words.
            raise BackboneError(
                "a chat template must take the roles that prompts have",
                got=f"{type(error).__name__} for {', '.join(one['role'] for one in framed)}: {error}",
                remedy="leave those messages out, or mend the template",
                where=self.name,
            ) from error
        return [*ids, *self.closing]

    def text(self, messages: Messages) -> str:
        """The text of a conversation with pictures, in which the template puts its own sign for each.

        Raises:
            BackboneError: if the template does not take the conversation, in its own words.
        """
        framed = self.framed(messages)
        try:
            return str(self._filled(as_parts(framed), tokenize=False))
        except Exception as error:  # As above.
            raise BackboneError(
                "a chat template must take messages with pictures",
                got=f"{type(error).__name__}: {error}",
                remedy="use the template that the model came with",
                where=self.name,
            ) from error

    def framed(self, messages: Messages) -> Messages:
        """A conversation with the system prompt before it, unless it has one of its own."""
        if not self.system or any(one["role"] == "system" for one in messages):
            return messages
        return [message("system", self.system), *messages]

    def require_system(self) -> None:
        """Returns when the template shows the system prompt, or there is none.

        Raises:
            BackboneError: if it takes no system message, or shows nothing of it.
        """
        if not self.system:
            return
        got = "a rendering without it"
        try:
            shown = self._filled(self._form(self.framed([message("user", PROBES[0])])), tokenize=False)
            if bare(self.system) in bare(shown):
                return
        except Exception as error:  # A template without a system role says so by an error of its own.
            got = f"{type(error).__name__}: {error}"
        raise BackboneError(
            "a chat template must show a recipe's system prompt",
            got=got,
            remedy="leave system out, or put its words into the prompts",
            where=self.name,
        )

    @cached_property
    def ending(self) -> int | None:
        """The token that the template itself puts behind an assistant's turn; None where it puts none."""
        asked, marker = message("user", PROBES[0]), PROBES[-1]
        try:
            whole = self._form([asked, message("assistant", marker)])
            shown = str(self._filled(whole, tokenize=False, opened=False))
        except Exception:  # A template may fail in any way on a conversation that is over.
            return None
        place = shown.lower().rfind(marker.lower())
        ids = self.encode(shown[place + len(marker) :].lstrip()) if place >= 0 else []
        return ids[0] if ids and ids[0] in self.tokenizer.added_tokens_decoder else None

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, with none of the tokenizer's own around it."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    @cached_property
    def _frozen(self) -> str | None:
        """The template with a clock of its own that stands still; None where it asks for no date.

        The library hands its own clock to every template, and lets no other one in.
        """
        template = self.tokenizer.get_chat_template()
        if CLOCK not in template:
            return None
        said = [(f"%{pad}{x}", DAY.strftime(f"%{pad}{x}")) for x in DIRECTIVES for pad in ("-", "")]
        told = "".join(f" | replace('{directive}', '{part}')" for directive, part in said)
        return f"{{%- macro {CLOCK}(form) %}}{{{{ form{told} }}}}{{%- endmacro %}}\n{template}"

    @cached_property
    def closing(self) -> list[int]:
        """What closes the thinking block that some templates open whatever they are told."""
        if self.thinking == "open":
            return []
        text = str(self._filled(self._form([message("user", PROBES[0])]), tokenize=False))
        if text.rfind(OPENED) <= text.rfind(CLOSED):
            return []
        return self.encode(f"\n{CLOSED}\n\n")

    @cached_property
    def _form(self) -> Callable[[Messages], Any]:
        """How the chat template reads messages.

        Raises:
            BackboneError: if it shows them in no form, so that every prompt would be the same.
        """
        got = "a rendering without it"
        for form in (list, as_parts):
            try:
                shown = self._filled(form([message("user", PROBES[-1])]), tokenize=False)
            except Exception as error:
                got = f"{type(error).__name__}: {error}"
                continue
            if PROBES[-1].lower() in shown.lower():
                return form
        raise BackboneError(
            "a chat template must show what the user says",
            got=got,
            remedy="use a chat model, or mend its template",
            where=self.name,
        )

    def _filled(self, messages: Any, *, tokenize: bool, opened: bool = True) -> Any:
        """A conversation as the chat template has it, up to where the reply begins if that is ``opened``."""
        switches: Any = NO_THINKING if self.thinking == "closed" else {}
        return self.tokenizer.apply_chat_template(
            messages,
            chat_template=self._frozen,
            add_generation_prompt=opened,
            tokenize=tokenize,
            return_dict=tokenize,
            **switches,
        )


def bare(text: str) -> str:
    """A text in one case and without white space, as templates may change both."""
    return "".join(text.split()).casefold()


def end_tokens(model: Any, template: ChatTemplate) -> tuple[int, ...]:
    """The ids of all tokens that end a reply, the template's own first: with it a finished reply ends.

    A model goes on after its turn where one of them is missing: generation configs forget what the template
    says, and tokenizers name what ends a text and not a turn. Of the model's configuration only what the
    tokenizer added to its words counts: a class of the library has an id by default, whatever it stands for.

    Raises:
        BackboneError: if nothing names one.
    """
    tokenizer, known = template.tokenizer, template.tokenizer.added_tokens_decoder
    # A model that sees may say it of itself, or of its decoder alone.
    configs = (model.config, model.config.get_text_config())
    configured = [token for config in configs for token in _listed(getattr(config, "eos_token_id", None))]
    ends = [
        *_listed(template.ending),
        *_listed(model.generation_config.eos_token_id),
        *(token for token in configured if token in known and token != tokenizer.unk_token_id),
        *_listed(tokenizer.eos_token_id),
    ]
    if not ends:
        raise BackboneError(
            "a chat model must have a token that ends a reply",
            got="none",
            remedy="set eos_token_id in its generation_config.json",
            where=template.name,
        )
    return tuple(dict.fromkeys(ends))


def _listed(ids: int | Sequence[int] | None) -> list[int]:
    """Token ids, of which a configuration may have none, one, or several."""
    if ids is None:
        return []
    return [int(ids)] if isinstance(ids, int) else [int(token) for token in ids]
