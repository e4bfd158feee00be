"""Rows that decisions rest on.

GRANT#<subject>/HEAD      what was granted to `person/<id>` or `login/<login>`: role, scope, end; in the collection GRANTS
ACCESS/HEAD               the added policies in force: name to number and digest
ACCESS/POLICY#<name>#<n>  one edition of an added policy: text, digest, who, why
PLACED#<model>/HEAD       where an admin has placed a model: tags, project, unit; in the collection PLACED
"""

from __future__ import annotations

from typing import Final

from attestry.ports import Key

GRANTS: Final = "GRANTS"
PLACED: Final = "PLACED"
POLICIES_KEY: Final = Key("ACCESS")


def grant_key(subject: str) -> Key:
    """Return the key of what was granted to a subject."""
    return Key(f"GRANT#{subject}")


def placement_key(model: str) -> Key:
    """Return the key of where a model is placed."""
    return Key(f"PLACED#{model}")


def access_policy_key(name: str, number: int) -> Key:
    """Return the key of an edition of an added policy."""
    return Key("ACCESS", f"POLICY#{name}#{number:06d}")


def person_subject(person: str) -> str:
    """Return a person as grants name one."""
    return f"person/{person}"


def login_subject(login: str) -> str:
    """Return a login, a service's for example, as grants name one."""
    return f"login/{login}"
