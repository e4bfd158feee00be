"""Which keys the next trusted root names: the first one of a deployment, after a rotation, after a revocation.

A key goes by a label, on the command line and in what people are shown: `ledger`, `delegator`, `artifact`, `witness:<name>`, or the name of
the function that signs attestations with it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from attestry.domain.errors import InvalidInputError
from attestry.evidence.trusted_root import TrustedKey, TrustedRoot, details_of

_FIELDS: Final = {
    "tlogs": "tlogs",
    "witnesses": "witnesses",
    "delegators": "delegators",
    "signers": "signers",
    "artifactSigners": "artifact_signers",
}
_LABELS: Final = {"tlogs": "ledger", "delegators": "delegator", "artifactSigners": "artifact"}


@dataclass(frozen=True)
class LabelledKey:
    """A key with what it is used for.

    Attributes:
        use: list of the trusted root that it stands in.
        key: the key.
    """

    use: str
    key: TrustedKey

    @property
    def label(self) -> str:
        """Return what people call it."""
        if self.use == "witnesses":
            return f"witness:{self.key.name}"
        return _LABELS.get(self.use, self.key.name)


def labelled(root: TrustedRoot) -> list[LabelledKey]:
    """Return the keys of a trusted root, in its order."""
    return [LabelledKey(use, key) for use, field in _FIELDS.items() for key in getattr(root, field)]


def read_deployed(entries: Iterable[Mapping[str, Any]], start: str) -> list[LabelledKey]:
    """Return the keys that `GET /v1/root/keys` told, valid from `start` on.

    Raises:
        InvalidInputError: an entry is out of form.
    """
    return [_read(entry, start) for entry in entries]


def first_root(registry: str, deployed: Iterable[LabelledKey], *, demo: bool) -> TrustedRoot:
    """Return the first trusted root of a deployment: every key that it signs with.

    Args:
        registry: origin of its ledger.
        deployed: its keys, with their start; what was logged before that is not covered.
        demo: whether the keys of the root lie unguarded.

    Raises:
        InvalidInputError: the keys are no trusted root, for example because none is a ledger's.
    """
    return _root(registry, demo, deployed)


def rotate(root: TrustedRoot, deployed: Iterable[LabelledKey], *, end: str, only: Collection[str] = ()) -> TrustedRoot:
    """Return the trusted root that follows the deployment's keys, or the same one when they are those that it trusts.

    A deployed key that is not named yet is added, with its start. A named one with the same label that is no longer deployed ends at `end`,
    unless it ended before. Between the two starts and ends both are valid: what the old key signed last is logged a little later.

    Args:
        root: the trusted root as published.
        deployed: the deployment's keys; their start is that of added ones.
        end: when replaced keys end.
        only: labels that may change; empty for all.

    Raises:
        InvalidInputError: a label that no key has, or a deployed key that ended.
    """
    wanted = list(deployed)
    have = labelled(root)
    unknown = sorted(set(only) - {k.label for k in (*wanted, *have)})
    if unknown:
        raise InvalidInputError.of("key", "label", f"no key is called {unknown[0]!r}; keys are called {_names(have)}")
    named = {k.key.der: k for k in have}
    deployed_ders = {k.key.der for k in wanted}
    for key in wanted:
        there = named.get(key.key.der)
        if there is not None and there.key.end is not None and there.key.end <= end:
            raise InvalidInputError.of("key", "ended", f"the deployment signs as {key.label} with a key that ended at {there.key.end}")
    changing = {k.label for k in wanted if k.key.der not in named and (not only or k.label in only)}
    added = [k for k in wanted if k.key.der not in named and k.label in changing]
    kept = [
        _ended(k, end) if k.label in changing and k.key.der not in deployed_ders and (k.key.end is None or k.key.end > end) else k
        for k in have
    ]
    return _root(root.registry, root.demo, [*kept, *added])


def revoke(root: TrustedRoot, fingerprint: str, *, since: str) -> TrustedRoot:
    """Return the trusted root in which a key has ended: what is logged from `since` on is refused, what was logged before stays valid.

    Raises:
        InvalidInputError: no key, or more than one, has a fingerprint that begins so; or it ended before `since`.
    """
    found = [k for k in labelled(root) if fingerprint and k.key.fingerprint.startswith(fingerprint)]
    if len(found) != 1:
        raise InvalidInputError.of("key", "fingerprint", f"{len(found)} keys have a fingerprint that begins with {fingerprint!r}")
    if found[0].key.end is not None and found[0].key.end <= max(since, found[0].key.start):
        raise InvalidInputError.of("key", "ended", f"the key ended at {found[0].key.end} already")
    return _root(root.registry, root.demo, [_ended(k, since) if k == found[0] else k for k in labelled(root)])


def _ended(key: LabelledKey, end: str) -> LabelledKey:
    return LabelledKey(key.use, replace(key.key, end=max(end, key.key.start)))


def _root(registry: str, demo: bool, keys: Iterable[LabelledKey]) -> TrustedRoot:
    found: dict[str, list[TrustedKey]] = {field: [] for field in _FIELDS.values()}
    for key in keys:
        found[_FIELDS[key.use]].append(key.key)
    return TrustedRoot(registry, demo, **{field: tuple(listed) for field, listed in found.items()})


def _read(entry: Mapping[str, Any], start: str) -> LabelledKey:
    try:
        use = str(entry["use"])
        if use not in _FIELDS:
            raise ValueError(f"no use {use!r}")
        der = base64.b64decode(str(entry["der"]), validate=True)
        key = TrustedKey(str(entry["name"]), str(entry["key_id"]), details_of(der), der, start, None, entry["outside"] is True)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InvalidInputError.of("keys", "key", f"the registry told a key in no known form: {error}") from error
    return LabelledKey(use, key)


def _names(keys: Iterable[LabelledKey]) -> str:
    return ", ".join(sorted({k.label for k in keys}))
