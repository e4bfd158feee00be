"""Patch: tables are saved without their rows, which have files of their own (`attestry.local.row_files`).

Nothing of AWS is at stake. The emulator saves all rows of all tables each time: a table of a million would take minutes, and as much
memory once more. State that was saved with its rows in it is loaded as ever.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attestry.local import packed
from attestry.local.packed import CHANGING, Items
from attestry.local.patching import load, replace
from attestry.local.row_files import FOLDER, MARK, STATE, RowFile, blocks_of, named_in

__all__ = ["apply", "hand_over", "patch", "settle"]

_OTHERS = (
    "tags",
    "ttl_settings",
    "pitr_settings",
    "kinesis_destinations",
    "contributor_insights",
    "backups",
    "resource_policies",
    "exports",
    "imports",
)


def apply() -> None:
    """Patch the saving and loading of tables, where anything is saved.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    persistence = load("ministack.core.persistence")
    if persistence.PERSIST_STATE:
        patch(load("ministack.services.dynamodb"), Path(persistence.STATE_DIR))


def patch(tables: Any, folder: Path) -> None:
    """Patch the emulator's module of DynamoDB.

    Args:
        tables: the module.
        folder: of the state.

    Raises:
        PatchError: it is not what this was written for.
    """
    packed.file_of_new_rows = RowFile
    replace(tables, "get_state", "ce90690a6033950f", lambda _: _state_of(tables, folder))
    replace(tables, "_restore_state", "a5aba16053a2e1da", lambda original: _restore(original, folder))


def _state_of(tables: Any, folder: Path) -> Callable[[], dict[str, Any]]:
    def get_state() -> dict[str, Any]:
        saved = tables.AccountRegionScopedDict()
        for (account, region, name), table in tables._tables.all_items():
            told = copy.deepcopy({key: value for key, value in table.items() if key not in ("items", tables._INDEX_MEMBERS)})
            told["items"] = table["items"].file.write(table["items"], folder)
            saved.set_scoped(account, region, name, told)
        return {"tables": saved, **{name: copy.deepcopy(getattr(tables, f"_{name}")) for name in _OTHERS}}

    return get_state


def _restore(original: Callable[[Any], Any], folder: Path) -> Callable[[Any], Any]:
    def restore(data: Any) -> Any:
        stores = data.get("tables") if data else None
        named = set()
        for table in stores.all_values() if stores is not None and hasattr(stores, "all_values") else ():
            if mark := (table.get("items") or {}).get(MARK):
                table["items"] = read_rows(folder, mark)
                named.add(mark["name"])
        restored = original(data)
        _delete(folder, lambda name: name not in named)  # of tables that were deleted, or whose rows were replaced
        return restored

    return restore


def _delete(folder: Path, is_over: Callable[[str], bool]) -> None:
    for path in (folder / FOLDER).glob("*"):
        if is_over(path.name):
            path.unlink(missing_ok=True)


def read_rows(folder: Path, mark: dict[str, Any]) -> Items:
    """Return the rows of a table.

    Args:
        folder: of the state.
        mark: what the state says of their file.

    Raises:
        OSError: there is no such file.
        ValueError: it is not as long as it was.
    """
    items = Items()
    for block in blocks_of(folder / FOLDER / mark["name"], mark["length"]):
        items.restore(block)
    items.file = RowFile(mark["name"], mark["length"], mark["changes"])
    return items


def hand_over() -> None:
    """Begin a saving of all tables."""
    with CHANGING:  # no thread is between the change of a row and its note
        for table in load("ministack.services.dynamodb")._tables.all_values():
            if table["items"].file is not None:
                table["items"].file.hand_over(table.get("ItemCount", 0))


def settle() -> None:
    """End a saving of all tables, however far it came."""
    persistence = load("ministack.core.persistence")
    if (saved := named_in(Path(persistence.STATE_DIR) / STATE)) is None:
        return
    for table in load("ministack.services.dynamodb")._tables.all_values():
        if table["items"].file is not None:
            table["items"].file.settle(saved)
