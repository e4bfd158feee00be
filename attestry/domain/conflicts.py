"""Conflicts of interest: who does not decide on a version, besides the person who submitted it.

Rules:
- Who has declared a conflict of interest on a model, or for whom an admin has, decides on none of its versions until an admin withdraws it.
- Where the policy asks for independence, who wrote the code does not decide: the author of the commit, by name or e-mail address, as far
  as these are those of the person. A name that nobody registered is nobody's; the registry knows no more than its records.
- Where the policy asks for fresh eyes, who approved the version before does not decide: the model's last approved version, or this version
  the last time that it was approved.
- What was known when the approval opened stands in the packet, for everybody to see and for the verifier to hold decisions against.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attestry.domain.errors import ForbiddenError

DECLARED, FRESH_EYES = "declared", "fresh_eyes"

_AUTHOR = re.compile(r"\s*([^<]*?)\s*(?:<([^<>]*)>)?\s*")


class ConflictOfInterestError(ForbiddenError):
    """The person has a conflict of interest, and does not decide."""

    code = "conflict_of_interest"


@dataclass(frozen=True)
class Conflict:
    """Why a person does not decide.

    Attributes:
        person: who.
        rule: `declared` or `fresh_eyes`.
        reason: in a sentence's part.
    """

    person: str
    rule: str
    reason: str

    def to_item(self) -> dict[str, str]:
        """Return the conflict as the packet has it."""
        return {"person": self.person, "rule": self.rule, "reason": self.reason}


def is_author(author: str, names: Iterable[str]) -> bool:
    """Return whether one of a person's names is that of the author of a commit.

    Args:
        author: as git tells it: `Name <address>`, a name, or an address.
        names: the person's ID, name and logins; case makes no difference.
    """
    match = _AUTHOR.fullmatch(author)
    name, address = (match[1], match[2] or "") if match else (author.strip(), "")
    told = {text.casefold() for text in (name, address, address.partition("@")[0], name.partition("@")[0]) if text}
    return bool(told & {text.strip().casefold() for text in names if text.strip()})


def check_independent(author: str, person: str, names: Iterable[str]) -> None:
    """Refuse a decision by who wrote the code.

    Args:
        author: author of the commit.
        person: ID of the person who decides.
        names: their names and logins.

    Raises:
        ConflictOfInterestError: they wrote it.
    """
    if is_author(author, (person, *names)):
        raise ConflictOfInterestError(f"{person} wrote the code ({author}), and the policy asks for somebody who did not")


def check_no_conflict(conflicts: Sequence[Mapping[str, Any]], person: str) -> None:
    """Refuse a decision by a person who has a conflict.

    Args:
        conflicts: what the packet lists, or what is declared.
        person: who decides.

    Raises:
        ConflictOfInterestError: they have.
    """
    for conflict in conflicts:
        if conflict["person"] == person:
            raise ConflictOfInterestError(f"{person} has a conflict of interest and does not decide: {conflict['reason']}")
