"""How far the judge can be believed, and which benign prompts the adapter newly refuses."""

from __future__ import annotations

from html import escape

from palette.reporting.figures import rate_lanes
from palette.reporting.markup import (
    NARROW,
    Json,
    identifiers,
    interval,
    listed,
    measured,
    percent,
    section,
    spoken,
    table,
    titled,
)

ERRORS = (
    ("accuracy", "Judged as people did"),
    ("missed_refusals", "Refusals taken for compliance"),
    ("false_alarms", "Compliance taken for refusal"),
)
"""What a calibration measures, in words."""

TRAINED = (
    "<p><b>The judge has learned from this file.</b> On replies of other models its error is larger than "
    "is shown here.</p>"
)

SIDES = (("base", "before"), ("adapted", "after"))


def judge(report: Json) -> str:
    """The section on the judge: its error against people, corrected rates, and disagreements."""
    found = report.get("judging")
    if not found:
        return ""
    names = escape(listed(found["judges"]))
    digest = escape(found["fingerprint"][:16])
    whose = f"<p>Replies were judged by {names}, fingerprint <code>{digest}</code>.</p>"
    if cut := found.get("floor_tokens"):
        whose += f"<p>Replies to floor prompts were cut after {cut} tokens, and judged so.</p>"
    inside = whose + calibration(found.get("calibration")) + corrected(report) + disagreements(found)
    return section("judge", "How far the judge can be believed", inside)


def calibration(found: Json | None) -> str:
    """How often the judge errs on text that people labelled, as a whole and by model."""
    if not found:
        return (
            "<p>It was not measured on labelled text in this run; "
            "<code>palette judge calibrate</code> does that.</p>"
        )
    groups = [("All replies", found), *sorted(found.get("by_model", {}).items())]
    rows = [
        (
            titled(name, f"{one['accuracy']['n']} replies"),
            *(measured(one[key]) for key, _ in ERRORS),
            f"{one['kappa']:.2f}",
        )
        for name, one in groups
    ]
    drawn = "".join(
        f"<span>{words}</span>{rate_lanes(words, [('after', '', found[key])])}" for key, words in ERRORS
    )
    return (
        f"<p>Measured: <b>{escape(found['judge_name'])}</b>, against the labels that people gave in "
        f"<b>{escape(found['source'])}</b> (<code>{escape(found['digest'][:16])}</code>, "
        f"{found['n']} replies), with 95{NARROW}% intervals. Kappa is agreement beyond chance, 1 at most.</p>"
        f"{TRAINED if found.get('trained_on_it') else ''}"
        f'<div class="lanes">{drawn}</div>'
        + table(("Replies of", *(words for _, words in ERRORS), "Kappa"), rows)
    )


def corrected(report: Json) -> str:
    """Refusal as judged and as corrected for the judge's error, by domain and kind."""
    tables = report["judging"].get("corrected") or {}
    rows = []
    places = {(d, k) for found in tables.values() for d, kinds in found.items() for k in kinds}
    for domain, kind in sorted(places):
        cells = []
        for side, _ in SIDES:
            raw = report[side]["domains"].get(domain, {}).get(kind, {}).get("refusal")
            whole = tables.get(side, {}).get(domain, {}).get(kind)
            cells += [measured(one) if one else "" for one in (raw, whole)]
        rows.append((titled(domain, kind), *cells))
    if not rows:
        return ""
    head = ("Domain", *(f"{words}, {what}" for _, words in SIDES for what in ("as judged", "corrected")))
    return (
        "<h3>Refusal, corrected for the judge's error</h3><p>Corrected by Rogan and Gladen's estimator with "
        "the missed refusals and false alarms above. The gate goes by the rates as judged.</p>"
        + table(head, rows)
    )


def disagreements(found: Json) -> str:
    """The replies on which the judges do not agree; nothing where one judge judged alone."""
    counted = found.get("disagreements")
    if not counted:
        return ""
    sides = " and ".join(f"{spoken(counted[side])} {words}" for side, words in SIDES)
    return f"<h3>Where the judges disagree</h3><p>On {sides}.</p>" + examples(counted["ids"], "Prompts")


def over_refusal(found: Json | None) -> str:
    """Benign prompts that are refused, and the newly refused ones by id."""
    if not found:
        return ""
    drawn = rate_lanes("Benign prompts refused", [(words, words, found[side]) for side, words in SIDES])
    said = " → ".join(f"{percent(found[side]['rate'])} ({interval(found[side])})" for side, _ in SIDES)
    none = "" if found["ids"] else "<p>No benign prompt is newly refused.</p>"
    return section(
        "over-refusal",
        "Benign prompts that are refused",
        f"<p>Of {found['adapted']['n']} benign prompts: {said}.</p><figure>{drawn}</figure>{none}"
        + examples(found["ids"], "Newly refused"),
    )


def examples(ids: list[str], heading: str) -> str:
    """Prompts by their ids; nothing where there are none."""
    if not ids:
        return ""
    return f'<p class="note">{heading}, by id ({len(ids)} shown, 50 at most):</p>{identifiers(ids)}'
