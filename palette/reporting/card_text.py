"""The words of the model card, in Markdown in which no name from outside can become markup."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from palette.reporting.markup import Json, listed, nats
from palette.reporting.origin import sentences
from palette.reporting.verdict import amount, in_words

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
"""A model's name on the hub."""

LONGEST = 200
"""Characters of a name from outside at most."""

SIGNS = re.compile(r"[\\`*_\[\]|~$@]")
"""Signs that Markdown reads as markup wherever they stand; of "<", ">" and "&" entities are made."""

LINKS = re.compile(r"(?<=www)\.|:(?=//)", re.IGNORECASE)
"""What makes a link of a bare address."""

START = re.compile(r"^(?=[#+=-])|(?<=^\d)(?=[.)])|(?<=^\d\d)(?=[.)])")
"""What makes a heading, a list or a rule of a line that starts so."""

USE = """\
This adapter is for those who operate the backbone and answer for it, to give professional tenants the one
relaxation named above. It is not for the public. Do not use it to open what the floor holds (weapons of
mass harm, child safety, sexual and violent crime, hate, defamation, methods of self-harm), do not hand it
to people who were not authorised, and do not present it, or a merge of it, as certified without a passed
gate of its own."""

LOAD = """\
With PEFT, on the backbone that the fingerprint below names (a model that sees is loaded by
`AutoModelForImageTextToText`):

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(BACKBONE)
model = PeftModel.from_pretrained(model, FOLDER)
```

With Palette, to measure it again:

```console
$ palette evaluate --model BACKBONE --prompts PROMPTS --authorise DOMAINS --adapter FOLDER
```"""


def text_of(report: Json, despite: str | None = None) -> str:
    """The body of the card: what is authorised, the verdict, figures, limits, use and provenance."""
    opened, model = listed([plain(name) for name in report["authorised"]]), plain(backbone_name(report))
    parts = [
        f"# {model}, authorised for {opened}",
        f"A LoRA adapter that relaxes refusals of {model} in {opened}, and is measured to"
        " keep every other one. It raises willingness, not knowledge.",
        f"## Gate: {'passed' if report['gate']['passed'] else 'failed'}",
        verdict(report["gate"]),
        *([f"**Pushed although the gate failed**, for this reason: {plain(despite)}"] if despite else []),
        f"## Figures, on the {plain(report['split'])} split",
        "Before and after the adapter, each with its 95 % interval. `report.html` shows them with the rest.",
        figures(report),
        "## Limits",
        "\n".join(f"- {plain(sentence)}" for sentence in sentences(report)),
        "## Acceptable use",
        USE,
        "## Loading",
        LOAD,
        "## Provenance",
        "\n".join(provenance(report)),
    ]
    return "\n\n".join(parts)


def clean(text: object) -> str:
    """A text from outside on one line: no control or invisible characters, and not endless."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def plain(text: object) -> str:
    """A text from outside as Markdown that shows it and does nothing else."""
    shown = SIGNS.sub(lambda sign: f"\\{sign[0]}", clean(text))
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        shown = shown.replace(sign, entity)
    return START.sub(r"\\", LINKS.sub(lambda sign: f"\\{sign[0]}", shown))


def is_on_hub(name: str) -> bool:
    """Whether a backbone's name can be one on the hub, and is no folder here."""
    return len(name) <= 96 and bool(HUB_NAME.fullmatch(name)) and not Path(name).is_dir()


def backbone_name(report: Json) -> str:
    """The backbone's name; of a folder of this machine its last part alone."""
    name = str(report["model"]["name"])
    return name if is_on_hub(name) else Path(name).name or name


def verdict(gate: Json) -> str:
    """The verdict in sentences; a failed rule with its reason."""
    failed = [rule for rule in gate["rules"] if not rule["passed"]]
    if not failed:
        return f"All {len(gate['rules'])} rules hold."
    lines = [
        f"- {plain(in_words(rule['name']))}: {plain(rule['reason'])} (limit {plain(amount(rule, 'limit'))})"
        for rule in failed
    ]
    said = f"{len(failed)} of {len(gate['rules'])} rules do not hold. **This adapter is not certified.**"
    return "\n".join([said, "", *lines])


def figures(report: Json) -> str:
    """Refusal and right answers by domain and kind, as a table."""
    lines = [
        "| domain | prompts | n | refused before | refused after | right before | right after |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for domain, kinds in report["adapted"]["domains"].items():
        for kind, after in kinds.items():
            before = report["base"]["domains"][domain][kind]
            opened = " (authorised)" if kind == "restricted" and domain in report["authorised"] else ""
            cells = [
                share(side.get(measure)) for measure in ("refusal", "correct") for side in (before, after)
            ]
            lines.append(row([f"{plain(domain)}{opened}", kind, str(after["refusal"]["n"]), *cells]))
    spread = report["adapted"]["divergence"]
    said = ", ".join(
        f"{name} {clean(nats(spread[key]))}"
        for name, key in (("first token", "first_token"), ("all tokens", "multi_token"))
    )
    return "\n".join([*lines, "", f"Divergence from the backbone on benign prompts: {said}."])


def row(cells: Sequence[str]) -> str:
    """One row of a table."""
    return f"| {' | '.join(cells)} |"


def share(rate: Json | None) -> str:
    """A rate with its interval in per cent; nothing where it was not measured."""
    if not rate:
        return ""
    return f"{rate['rate'] * 100:.1f} ({rate['low'] * 100:.1f}–{rate['high'] * 100:.1f}) %"


def provenance(report: Json) -> Iterator[str]:
    """Where the figures come from, a line each."""
    source = report["provenance"]
    rows = {
        "Backbone": f"{backbone_name(report)} {report['model']['fingerprint']}",
        "Adapter": source.get("adapter") or "none",
        "Floor": source["floor"],
        "Judge": source["judge"],
        **{f"Prompts, {name}": digest for name, digest in source["prompts"].items()},
        **{f"Version, {name}": version for name, version in source["versions"].items()},
        **{
            f"Source, {one['name']}": f"{one['licence']}, {one['digest']}"
            for one in report.get("sources") or ()
        },
    }
    for name, value in rows.items():
        yield f"- {plain(name)}: {plain(value)}"
