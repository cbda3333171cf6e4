"""A certificate read: signatures, files and facts together, or nothing.

What it gives are the facts of the decision and the very bytes that were checked. Whoever loads the adapter
loads these, never the folder again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from palette.authorisation.grants import Certified
from palette.certificates.contents import Contents, read_contents
from palette.certificates.facts import Facts
from palette.certificates.recount import require_recounted
from palette.certificates.statements import (
    BUNDLE,
    CERTIFICATE,
    FAILED,
    ISSUED,
    OURS,
    PROVENANCE,
    TEST_RESULT,
    certificate_of,
    read_bundle,
)
from palette.errors import AdapterError, SignatureError
from palette.files import write_text
from palette.signing import Envelope, KeyRing, same_person
from palette.signing.instants import instant

if TYPE_CHECKING:
    from palette.adapters.lora import Adapter

NEVER: Mapping[str, datetime] = {}


@dataclass(frozen=True)
class Certificate:
    """A certificate that holds, and the adapter's bytes that it is of."""

    certified: Certified
    facts: Facts
    contents: Contents
    holder: str
    """Who holds the key that signed it."""
    envelopes: tuple[Envelope, ...]

    @property
    def id(self) -> str:
        """The digest of the signed statement."""
        return self.certified.id

    @property
    def files(self) -> Mapping[str, bytes]:
        """The adapter's files by name: the bytes that were verified."""
        return self.contents.files

    @property
    def approved_by_signer(self) -> bool:
        """Whether the approver signed it; otherwise its signer says that the approver agreed."""
        return same_person(self.facts.approver, self.holder)

    def standing(self, now: datetime) -> str:
        """``in force``, or why it is not: ``revoked``, ``expired`` or ``not yet in force``."""
        if self.certified.revoked is not None:
            return "revoked"
        if now < self.certified.not_before:
            return "not yet in force"
        return "in force" if now < self.certified.expires else "expired"

    def adapter(self) -> Adapter:
        """The adapter of the verified bytes, in memory.

        Raises:
            AdapterError: if it is another one than the certificate's.
        """
        adapter = self.contents.adapter()
        if adapter.digest != self.certified.adapter:
            raise AdapterError(
                "an adapter must have its certificate's digest",
                got=adapter.digest[:12],
                where=self.contents.where,
            )
        return adapter

    def write(self, folder: Path) -> None:
        """Writes the verified bytes and their certificate into a folder of their own, for another server.

        Raises:
            OutputError: if the disk cannot take them.
        """
        self.contents.write(folder)
        write_text(folder / BUNDLE, "".join(f"{each.text}\n" for each in self.envelopes))


def read_certificate(
    folder: Path | str, ring: KeyRing, revoked: Mapping[str, datetime] = NEVER
) -> Certificate:
    """The certificate of the adapter in a folder, verified, with the bytes that it is of.

    ``revoked`` says when certificates were revoked, by id. Whether it is in force at an instant is the
    decision's business, which is told when it begins, expires and was revoked.

    Raises:
        AdapterError: if the adapter is missing, or not a plain LoRA.
        SignatureError: if there is no certificate, or anything in it does not hold.
    """
    folder = Path(folder)
    contents = read_contents(folder)
    path = folder / BUNDLE
    statements = read_bundle(path, ring, contents.digests)
    if missing := ISSUED.keys() - statements.keys():
        raise SignatureError(
            "a certificate must have its test result and its provenance",
            got=f"no {min(missing)}",
            where=path,
        )
    content, envelope = statements[CERTIFICATE]
    facts = _facts(content["predicate"], path)
    signer = envelope.signatures[0][0]
    holder = ring.keys[signer].holder
    _require_together(statements, facts, path)
    require_apart(facts.trainer, facts.approver, holder, path)
    require_own(contents, facts)
    require_recounted(facts, path)
    _require_not_failed_since(folder / FAILED, ring, contents, facts)
    certified = Certified(
        envelope.digest,
        facts.adapter,
        frozenset(facts.domains),
        facts.backbone.fingerprint,
        facts.floor.digest,
        signer,
        instant(facts.not_before),
        instant(facts.expires),
        revoked.get(envelope.digest),
        holder,
    )
    return Certificate(certified, facts, contents, holder, tuple(each for _, each in statements.values()))


def _facts(predicate: Any, where: Path) -> Facts:
    try:
        return Facts.model_validate(predicate)
    except ValidationError as error:
        raise unfit(error, where, "certify it again") from error


def unfit(error: ValidationError, where: Path, remedy: str | None = None) -> SignatureError:
    """The error of facts that no certificate can say, by the first of them."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return SignatureError(
        "a certificate must say what its format demands",
        got=ascii(f"{place}: {first['msg']}".removeprefix(": "))[1:-1][:240],
        remedy=remedy,
        where=where,
    )


def _require_together(
    statements: Mapping[str, tuple[dict[str, Any], Envelope]], facts: Facts, where: Path
) -> None:
    """Returns nothing: all statements are of one certificate, and of one signing."""
    certificate = statements[CERTIFICATE][1]
    signers = [key for key, _ in certificate.signatures]
    for kind in (TEST_RESULT, PROVENANCE):
        content, envelope = statements[kind]
        try:
            whose, issued = certificate_of(content), content["predicate"][OURS]
        except (KeyError, TypeError) as error:
            law = f"a statement must be of the form {kind}"
            raise SignatureError(law, got=f"{type(error).__name__}: {error}", where=where) from error
        same = (whose, issued) == (certificate.digest, facts.issued)
        if not same or [key for key, _ in envelope.signatures] != signers:
            raise SignatureError(
                "the statements of a bundle must be of one certificate",
                got=f"{kind} of another",
                where=where,
            )
    result = statements[TEST_RESULT][0]["predicate"]
    passed = sorted(rule.name for rule in facts.gate.rules)
    if result.get("result") != "PASSED" or result.get("failedTests") or result.get("passedTests") != passed:
        raise SignatureError("a certificate's test result must be its gate's", got="another", where=where)


def require_own(contents: Contents, facts: Facts) -> None:
    """Returns nothing: the adapter's own header says nothing else than its certificate.

    Raises:
        SignatureError: if it names other domains, another backbone or another floor.
    """
    stated: dict[str, tuple[object, object]] = {
        "domains": (contents.domains, frozenset(facts.domains)),
        "backbone": (contents.backbone, facts.backbone.fingerprint),
    }
    # A merge has no floor of its own: it is measured above that of all its adapters.
    if facts.merge is None:
        stated["floor"] = (contents.floor, facts.floor.digest)
    for what, (own, certified) in stated.items():
        if own is not None and own != certified:
            shown = "+".join(sorted(own)) if isinstance(own, frozenset) else own
            raise SignatureError(
                "a certificate must say what the adapter's own header says",
                got=f"another {what} there, {ascii(shown)[1:-1][:80]}",
                remedy="certify the adapter that is there",
                where=contents.where,
            )


def require_apart(trainer: str, approver: str, holder: str, where: Path | None = None) -> None:
    """Returns nothing: who trained an adapter neither approves nor certifies it.

    The approver may hold the certifying key, and then has signed the approval.

    Raises:
        SignatureError: if the trainer is one of the two.
    """
    for role, name in (("approver", approver), ("holder of the certifying key", holder)):
        if same_person(trainer, name):
            raise SignatureError(
                f"the {role} must be another person than the trainer",
                got=f"{ascii(name)[:80]} for both",
                remedy="have somebody else do it, or name the trainer with --trainer",
                where=where,
            )


def _require_not_failed_since(path: Path, ring: KeyRing, contents: Contents, facts: Facts) -> None:
    """Returns nothing: no trusted statement beside it says that the same adapter failed since."""
    if not path.exists():
        return
    for kind, (content, _) in read_bundle(path, ring, contents.digests).items():
        failed = content["predicate"][ISSUED[kind]]
        if instant(failed) >= instant(facts.issued):
            raise SignatureError(
                "an adapter that failed the gate since it was certified is certified no more",
                got=f"a statement of {failed}",
                remedy="measure it and certify it again",
                where=path,
            )
