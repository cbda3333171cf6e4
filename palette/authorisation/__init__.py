"""Who may be asked for what: the floor that nothing opens, and the role of every prompt."""

from palette.authorisation.floor import FLOOR, Floor
from palette.authorisation.roles import Authorisation, Role, authorise

__all__ = ["FLOOR", "Authorisation", "Floor", "Role", "authorise"]
