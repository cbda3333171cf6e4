"""The commands of keys as functions: ``palette.keys.new("board.pem", "certify", "A. Board")``."""

from palette.stages.keys import list_keys as list
from palette.stages.keys import new_key as new
from palette.stages.keys import retire_key as retire
from palette.stages.keys import revoke_key as revoke
from palette.stages.keys import trust_keys as trust

__all__ = ["list", "new", "retire", "revoke", "trust"]
