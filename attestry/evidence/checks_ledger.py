"""Steps of a verification: from the pin to events that are in the ledger.

Rules:

- Keys come from the pin by TUF. Without a pin the keys in the bundle are used, so that contradictions still show, but
  what is shown then is that the bundle agrees with itself, and no more.
- A checkpoint counts by the signature of the ledger's key; cosignatures count by the witnesses that the trusted root
  names. The time of a checkpoint is the latest that a cosignature or a leaf tells; key and metadata are judged then.
- Every leaf in the bundle has a proof and every proof a leaf; ledger times never go down along the log; no event is
  there twice.
- An event that is not in the ledger yet may be carried as it stands in the outbox. It counts as pending.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.domain.events import timestamp
from attestry.evidence.canonical import parse_canonical
from attestry.evidence.case import Case, Entry
from attestry.evidence.digests import is_sha256, sha256_hex
from attestry.evidence.leaf import Leaf, parse_event
from attestry.evidence.note import Algorithm, Checkpoint, Verifier, open_note
from attestry.evidence.tlog import leaf_hash, verify_inclusion
from attestry.evidence.verdict import Found, MissingError, Outcome, Witnessing

NOT_YET = "not yet in the ledger"
NO_PIN = "no pin: give --root; the keys are taken from the bundle itself, so anybody could have made it"


def check_root(case: Case, pin: bytes | None) -> Found | str:
    """Go from the pin to the trusted root; the metadata's time of validity is judged by `check_validity`."""
    from attestry.evidence.tuf_metadata import ROOT_NAME, verify_metadata

    files = case.take_folder("root/")
    if not files:
        raise MissingError("the bundle holds no root of trust")
    carried = sorted((int(match[1]), name) for name in files if (match := ROOT_NAME.fullmatch(name)))
    oldest = files[carried[0][1]] if carried else None
    try:
        # An older root than the pin is bound to it by the chain that starts there.
        chain = [verify_metadata(start, files) for start in dict.fromkeys((oldest, pin)) if start is not None]
    except IntegrityError as error:
        if missing := error.details.get("missing"):
            raise MissingError(f"root/{missing} is not in the bundle") from error
        raise
    if not chain:
        raise MissingError("the bundle holds no root metadata, and there is no pin")
    known = {name for verified in chain for name in verified.names}
    strangers = sorted(files.keys() - known)
    if strangers:
        raise IntegrityError(f"root/{strangers[0]} belongs to no chain of metadata")
    if len({verified.trusted_root.sha256 for verified in chain}) != 1:
        raise IntegrityError("the older roots in the bundle lead to another trusted root than the pin")
    verified = chain[-1]
    case.root, case.metadata = verified.trusted_root, verified
    if case.root.demo:
        case.notes.append("DEMO ROOT: the keys of this root lie unguarded on a machine; it proves nothing to anybody else")
    case.facts["root"] = {"fingerprint": verified.fingerprint, "trusted_root_sha256": case.root.sha256, "pinned": pin is not None}
    if pin is None:
        return Found(Outcome.MISSING, NO_PIN)
    return f"pinned root {verified.fingerprint[:16]} leads to the trusted root of {case.root.registry}"


def check_checkpoint(case: Case) -> Found | str:
    """Verify the ledger's signature over the checkpoint, and the witnesses' cosignatures."""
    if _is_fresh(case):
        return Found(Outcome.PENDING, NOT_YET)
    note, root = case.need("ledger/checkpoint"), case.need_root()
    logs = [Verifier.of(k.name, k.public_bytes) for k in root.ledger_keys()]
    witnesses = [Verifier.of(k.name, k.public_bytes, Algorithm.COSIGNATURE) for k in root.witness_keys()]
    opened = open_note(note, [*logs, *witnesses])
    checkpoint = Checkpoint.parse(opened.text)
    signed = [v for v in logs if opened.signed_by(v)]
    if not signed:
        raise IntegrityError("the checkpoint is not signed by a key of the ledger")
    if checkpoint.origin != root.registry:
        raise IntegrityError(f"the checkpoint is of the ledger {checkpoint.origin}, not of {root.registry}")
    case.checkpoint = checkpoint
    case.ledger_keys = tuple(v.public_key for v in signed)
    cosigned = {v.name: s.timestamp or 0 for v in witnesses if (s := opened.signed_by(v))}
    for name, seconds in cosigned.items():
        root.witness(name, _moment(seconds))
    case.cosigned_at = max(map(_moment, cosigned.values()), default="")
    outside = tuple(sorted(k.name for k in root.witness_keys() if k.name in cosigned and k.outside))
    case.witnessing = Witnessing(tuple(sorted(cosigned)), outside, checkpoint.size, checkpoint.origin)
    if opened.unverified:
        case.notes.append(f"{len(opened.unverified)} cosignatures by keys that the trusted root does not name were passed over")
    by = f"cosigned by {', '.join(sorted(cosigned))}" if cosigned else "without a cosignature"
    return f"{checkpoint.size} leaves, signed by the ledger, {by}{'' if outside else ' (self-witnessed)'}"


def check_leaves(case: Case) -> Found | str:
    """Verify that each leaf is in the tree of the checkpoint, and read the events."""
    logged = _read_logged(case)
    pending = _read_pending(case)
    entries = (*logged, *pending)
    ids = [entry.event["id"] for entry in entries]
    if len(set(ids)) != len(ids):
        raise IntegrityError("an event is there twice")
    case.entries = entries
    if not entries:
        raise MissingError("the bundle holds no event")
    if not logged:
        return Found(Outcome.PENDING, f"{NOT_YET}: {', '.join(sorted({e.kind for e in pending}))}")
    shown = f"{len(logged)} events are in the ledger"
    if pending:
        return Found(Outcome.PENDING, f"{shown}; {len(pending)} not yet: {', '.join(sorted({e.kind for e in pending}))}")
    return f"{shown}, logged {logged[0].at} to {logged[-1].at}"


def check_validity(case: Case) -> Found | str:
    """Judge the ledger's key and the root metadata at the time of the checkpoint."""
    root = case.need_root()
    if _is_fresh(case):
        return Found(Outcome.PENDING, f"{NOT_YET}, whose time is what keys and metadata are judged at")
    if case.checkpoint is None:
        raise MissingError("there is no checkpoint whose time could be told")
    at = max([case.cosigned_at, *(e.at for e in case.entries if e.index is not None)])
    if not at:
        raise MissingError("neither a cosignature nor a leaf tells the time of the checkpoint")
    valid = {k.public_bytes for k in root.ledger_keys(at)}
    if not valid.intersection(case.ledger_keys):
        raise IntegrityError(f"the key that signed the checkpoint was not valid at {at}")
    if case.metadata is not None:
        case.metadata.require_current(at)
    case.facts["ledger_time"] = at
    return f"at {at}"


def _is_fresh(case: Case) -> bool:
    """Return whether all events of the bundle still wait for the ledger, as they do for seconds after they happened."""
    bundle = case.need_bundle()
    logged = "ledger/checkpoint" in bundle.files or bundle.names("ledger/leaves/")
    return not logged and bool(bundle.names("ledger/pending/"))


def _read_logged(case: Case) -> list[Entry]:
    leaves = case.take_folder("ledger/leaves/")
    if not leaves:
        return []
    checkpoint = case.checkpoint
    if checkpoint is None:
        raise MissingError("there is no checkpoint that the leaves could be in")
    proofs = _read_proofs(case.need("ledger/proofs.json"), checkpoint)
    indices = {int(name.removesuffix(".json")): body for name, body in leaves.items()}
    if indices.keys() != proofs.keys():
        odd = sorted(indices.keys() ^ proofs.keys())
        raise IntegrityError(f"leaf {odd[0]} has no proof, or a proof no leaf")
    entries: list[Entry] = []
    for index in sorted(indices):
        verify_inclusion(leaf_hash(indices[index]), index, checkpoint.size, proofs[index], checkpoint.root)
        leaf = Leaf.parse(indices[index])
        if entries and leaf.logged < entries[-1].at:
            raise IntegrityError(f"leaf {index} was logged at {leaf.logged}, before leaf {entries[-1].index}")
        entries.append(Entry(leaf.event, leaf.event_sha256, index, leaf.logged))
    return entries


def _read_pending(case: Case) -> list[Entry]:
    entries = []
    for name, body in case.take_folder("ledger/pending/").items():
        event = parse_event(body)
        if name != f"{event['id']}.json":
            raise IntegrityError(f"ledger/pending/{name} holds another event")
        entries.append(Entry(event, sha256_hex(body), None, str(event["at"])))
    return sorted(entries, key=lambda e: (e.at, e.sequence))


def _read_proofs(data: bytes, checkpoint: Checkpoint) -> dict[int, list[bytes]]:
    body: Any = parse_canonical(data)
    if (
        not isinstance(body, dict)
        or set(body) != {"size", "proofs"}
        or type(body["size"]) is not int
        or not isinstance(body["proofs"], dict)
    ):
        raise InvalidInputError.of("ledger/proofs.json", "fields", "has not exactly size and proofs")
    if body["size"] != checkpoint.size:
        raise IntegrityError(f"the proofs are for {body['size']} leaves, the checkpoint has {checkpoint.size}")
    proofs: dict[int, list[bytes]] = {}
    for text, hashes in body["proofs"].items():
        if not (text.isascii() and text.isdigit() and str(int(text)) == text and isinstance(hashes, list) and all(map(is_sha256, hashes))):
            raise InvalidInputError.of("ledger/proofs.json", "proof", f"the proof of {text!r:.20} is out of form")
        proofs[int(text)] = [bytes.fromhex(h) for h in hashes]
    return proofs


def _moment(seconds: int) -> str:
    return timestamp(datetime.fromtimestamp(seconds, UTC))
