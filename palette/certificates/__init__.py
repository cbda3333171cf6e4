"""Certificates: what an adapter opens, for which backbone, on which evidence, and who answers for it."""

from palette.certificates.reading import Certificate, read_certificate
from palette.certificates.revocations import Revocations, read_revocations

__all__ = ["Certificate", "Revocations", "read_certificate", "read_revocations"]
