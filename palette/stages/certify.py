"""The certify verb: the gate reckoned again, and what it gives signed: a certificate, or a failure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from palette.adapters.configuration import WEIGHTS
from palette.certificates.canaries import canaries_of, canary_prompts
from palette.certificates.contents import read_contents
from palette.certificates.cyclonedx import bill_of_materials
from palette.certificates.facts import Canary, Facts
from palette.certificates.issuing import (
    Measured,
    Terms,
    facts_of,
    failed,
    measured,
    passed,
    require_certifiable,
    require_days,
    trainer_of,
)
from palette.certificates.log import enter
from palette.certificates.openssf import require_model_signing, sign_model
from palette.certificates.reading import require_apart, require_own
from palette.certificates.spdx import document
from palette.certificates.statements import BUNDLE, FAILED
from palette.errors import SignatureError
from palette.files import claim, require_free, write_json, write_text
from palette.processes import Progress, silent
from palette.reporting.report import REPORT
from palette.signing import Envelope, PrivateKey, Purpose, read_private
from palette.signing.instants import now, told
from palette.stages.load import load

SIGNATURE = "model.sig"
DAYS, CANARIES, MOST = 180, 4, 32
"""Days that a certificate holds, and canaries, where none are named; and canaries at most."""
SHOWN = {"domains", "adapter", "issued", "expires", "approver", "trainer", "trainer_known_by"}
"""What is told of a certificate's facts."""


class Options(TypedDict, total=False):
    """Where the certificate and its other forms go, and how many canaries it has."""

    output: Path | str | None
    """A folder of its own for the certified files and their certificate, beside those of the run."""
    log: Path | str | None
    cyclonedx: Path | str | None
    spdx: Path | str | None
    openssf: Path | str | None
    """An elliptic key, by which the files are signed as OpenSSF model-signing does, too."""
    canaries: int


def certify(
    run: Path | str,
    key: Path | str,
    approver: str,
    trainer: str | None = None,
    valid_days: int = DAYS,
    progress: Progress = silent,
    **options: Unpack[Options],
) -> dict[str, Any]:
    """What was certified in the folder of a run or of an adapter, and until when; or why it failed.

    The gate is reckoned again from the report's figures. Where it fails a statement of that is signed, and
    no certificate. ``trainer`` is by default the account that owns the weights' file. Canaries need the
    model of the run.

    Raises:
        AdapterError: if there is no adapter with its report, or it was not measured as a certificate needs.
        BackboneError: if canaries are asked for and the model is not there.
        OutputError: if a file cannot be read or written.
        SignatureError: if the key is not one to certify, or the trainer approves or certifies it.
    """
    folder = Path(run)
    days, count = require_days(valid_days), options.get("canaries", CANARIES)
    if not 0 <= count <= MOST:
        raise SignatureError(f"a certificate must have 0 to {MOST} canaries", got=count)
    if options.get("openssf"):
        require_model_signing()
    private = read_private(Path(key), Purpose.CERTIFY)
    contents = read_contents(folder)
    who, known_by = trainer_of(folder / WEIGHTS, trainer)
    require_apart(who, approver, private.public.holder)
    found = measured(contents)
    floor = require_certifiable(found)
    terms = Terms(approver, who, known_by, days, now().replace(microsecond=0))
    if not all(found.rules.values()):
        return _failed(found, terms, private, options.get("log"))
    facts = facts_of(found, floor, terms)
    require_own(contents, facts)
    output = Path(given) if (given := options.get("output")) is not None else None
    if output is not None:
        require_free(output, _owner(facts))
    if count:
        facts = facts.model_copy(update={"canaries": tuple(_canaries(folder, found, count, progress))})
    envelopes = passed(found, facts, private)
    places = {BUNDLE: folder / BUNDLE, **_exported(facts, found, envelopes[0].digest, options)}
    earlier = _earlier(folder / BUNDLE)
    if log := options.get("log"):
        # First, so that there is no certificate that the log does not know.
        enter(Path(log), envelopes, terms.issued)
    text = "".join(f"{each.text}\n" for each in envelopes)
    if output is not None:
        claim(output, _owner(facts))
        contents.write(output)
        write_text(output / REPORT, (folder / REPORT).read_text(encoding="utf-8"))
        write_text(output / BUNDLE, text)
        places[BUNDLE] = output / BUNDLE
    write_text(folder / BUNDLE, text, "make the run's folder writable")
    # What failed before is certified now; what was signed then stands in the log.
    (folder / FAILED).unlink(missing_ok=True)
    return {
        "passed": True,
        "certificate": envelopes[0].digest,
        "files": {name: str(path) for name, path in places.items()},
        "failed": [],
        "signer": private.public.id,
        **facts.model_dump(mode="json", include=SHOWN),
        "backbone": facts.backbone.fingerprint,
        "counted_from": facts.gate.counted_from,
        "canaries": len(facts.canaries),
        "replaces": earlier,
    }


def _earlier(path: Path) -> str | None:
    """The id of the certificate that stands there, which holds on until it expires or is revoked."""
    try:
        return Envelope.read(path.read_text(encoding="utf-8").partition("\n")[0]).digest
    except (OSError, UnicodeDecodeError, SignatureError):
        return None


def _failed(found: Measured, terms: Terms, key: PrivateKey, log: Path | str | None) -> dict[str, Any]:
    envelope = failed(found, terms, key)
    path = found.contents.where / FAILED
    if log:
        enter(Path(log), [envelope], terms.issued)
    write_text(path, f"{envelope.text}\n", "make the run's folder writable")
    return {
        "passed": False,
        "certificate": None,
        "files": {FAILED: str(path)},
        "failed": sorted(name for name, holds in found.rules.items() if not holds),
        "signer": key.public.id,
        "domains": list(found.report.authorised),
        "adapter": found.adapter.digest,
        "issued": told(terms.issued),
    }


def _canaries(folder: Path, found: Measured, count: int, progress: Progress) -> Sequence[Canary]:
    loaded = load(folder, progress=progress)
    prompts = canary_prompts(loaded.run, count)
    with progress("canaries", len(prompts)) as advance:
        canaries = canaries_of(loaded.run.backbone, found.adapter, prompts)
        advance(len(prompts))
    return canaries


def _owner(facts: Facts) -> dict[str, str]:
    return {"stage": "certify", "adapter": facts.adapter}


def _exported(facts: Facts, found: Measured, certificate: str, options: Options) -> dict[str, Path]:
    """The certificate's other forms, written; what they are, by where."""
    forms = {"cyclonedx": bill_of_materials, "spdx": document}
    written = {}
    if key := options.get("openssf"):
        written["openssf"] = found.contents.where / SIGNATURE
        sign_model(found.contents, Path(key), written["openssf"])
    for name, form in forms.items():
        given = options.get(name)
        if given:
            path = Path(str(given))
            write_json(path, form(facts, found.contents.digests, certificate), f"name another with --{name}")
            written[name] = path
    return written
