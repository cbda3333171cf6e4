"""The verify verb: what a certificate says of the adapter beside it, if it holds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from palette.certificates import read_certificate, read_revocations
from palette.certificates.log import require_entered
from palette.reporting.report import REPORT
from palette.signing import read_key_ring
from palette.signing.instants import now, told

IN_FORCE = "in force"


def verify(
    folder: Path | str,
    keys: Path | str = "keys.json",
    revoked: Path | str | None = None,
    log: Path | str | None = None,
) -> dict[str, Any]:
    """What the certificate in a folder says, whether it is in force now, and whose word that is.

    ``keys`` are the trusted keys, ``revoked`` the signed list of revoked certificates, and ``log`` a copy
    of the transparency log, in which every statement must then stand.

    Raises:
        AdapterError: if the adapter is missing, or not a plain LoRA.
        OutputError: if the trusted keys cannot be read.
        SignatureError: if there is no certificate, or anything of it does not hold.
    """
    ring = read_key_ring(Path(keys))
    instants = read_revocations(revoked, ring).instants if revoked is not None else {}
    found = read_certificate(folder, ring, instants)
    if log is not None:
        require_entered(Path(log), found.envelopes)
    facts = found.facts
    standing = found.standing(now())
    return {
        "certificate": found.id,
        "standing": standing,
        "in_force": standing == IN_FORCE,
        "domains": list(facts.domains),
        "adapter": facts.adapter,
        "backbone": facts.backbone.model_dump(mode="json"),
        "floor": facts.floor.digest,
        "issued": facts.issued,
        "not_before": facts.not_before,
        "expires": facts.expires,
        "revoked": told(at) if (at := found.certified.revoked) else None,
        "approver": facts.approver,
        "approved_by_signer": found.approved_by_signer,
        "trainer": facts.trainer,
        "trainer_known_by": facts.trainer_known_by,
        "signer": {"id": found.certified.signer, "holder": found.holder},
        "rules": {rule.name: rule.passed for rule in facts.gate.rules},
        "unmeasured": [rule.name for rule in facts.gate.rules if rule.unmeasured],
        "counted_from": facts.gate.counted_from,
        "judge_measured": bool(facts.judging and facts.judging.calibration),
        "null_control": facts.null_control is not None,
        "merge": facts.merge.model_dump(mode="json") if facts.merge else None,
        "canaries": len(facts.canaries),
        "report": _report(Path(folder), facts.report),
        "revocations_checked": revoked is not None,
        "log_checked": log is not None,
    }


def _report(folder: Path, certified: str) -> str:
    """Whether the report beside the adapter is the certified one: ``same``, ``other`` or ``none``."""
    try:
        data = (folder / REPORT).read_bytes()
    except OSError:
        return "none"
    return "same" if hashlib.sha256(data).hexdigest() == certified else "other"
