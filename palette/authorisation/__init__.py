"""Who may be asked for what: the floor that nothing opens, the role of every prompt, and who may ask.

Nothing here knows of a model: a security reviewer reads this folder, and ``palette.signing`` below it, alone.
"""

from palette.authorisation.decisions import Decision, Reason, Request, authorisation, decide
from palette.authorisation.floor import FLOOR, Floor
from palette.authorisation.grants import Certified, Credential, Grant, Tenant, grant, read_grant
from palette.authorisation.roles import Authorisation, Role, authorise

__all__ = [
    "FLOOR",
    "Authorisation",
    "Certified",
    "Credential",
    "Decision",
    "Floor",
    "Grant",
    "Reason",
    "Request",
    "Role",
    "Tenant",
    "authorisation",
    "authorise",
    "decide",
    "grant",
    "read_grant",
]
