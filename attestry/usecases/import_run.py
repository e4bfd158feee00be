"""The run that an import names: a claim like all the rest, and a link where the registry has the run and the importer may read it.

A link says that somebody who could read the run said that the files came from it. What the registry knows of the run is itself a claim, so
nothing rests on the link; but a run of the registry is bound by its digests, and a name without one is just a name.
"""

from __future__ import annotations

from datetime import datetime

from attestry.domain.catalogue import identity_of
from attestry.domain.principal import Principal
from attestry.domain.runs import is_run_id
from attestry.ports import MetaStore
from attestry.usecases.access_gate import may_do
from attestry.usecases.run_rows import run_key


def linked_run(meta: MetaStore, claimed: str, *, by: Principal, at: datetime) -> str:
    """Return the ID that is claimed of a run, if it is that of a run of the registry which the importer may read; else an empty text.

    Args:
        meta: the table.
        claimed: the ID of the run, as the import says it.
        by: the authenticated importer.
        at: the time.
    """
    row = meta.get(run_key(claimed)) if is_run_id(claimed) else None
    if row is None or not may_do(meta, "runs.read", identity_of(str(row["experiment"])), by=by, at=at):
        return ""
    return claimed
