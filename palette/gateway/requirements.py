"""The packages of the extra that a gateway, its store and its ledger need."""

from __future__ import annotations

from importlib.util import find_spec

from palette.errors import StoreError

PACKAGES = ("sqlalchemy", "alembic", "cryptography")


def require_packages(names: tuple[str, ...] = PACKAGES) -> None:
    """Returns nothing, if all are installed.

    Raises:
        StoreError: if some are not.
    """
    if missing := [name for name in names if find_spec(name) is None]:
        raise StoreError(
            f"tenants need the packages {', '.join(names)}",
            got=f"none of {', '.join(missing)}",
            remedy="pip install 'palette-llm[tenants]'",
        )
