"""Patch: one root key, and no unsigned way around it.

The emulator takes the access keys `test` and every 12-digit number for the account's root, whatever the secret, and answers
`POST /_ministack/reset` and `/_ministack/config` without a signature. Here the root key is the one of the data directory
(`AWS_ACCESS_KEY_ID` of the server's environment), and both paths are refused. Role sessions outlive a restart, as they outlive
whatever restarts on AWS.

It keeps accidents out, and code that tries the well-known key. It is no boundary: whatever runs as the same user of the same
machine can read the key.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from typing import Any

from attestry.local.patching import load, replace, share


def apply() -> None:
    """Patch access to the server.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    evaluator = load("ministack.core.iam_evaluator")
    root_key = os.environ["AWS_ACCESS_KEY_ID"]
    replace(evaluator, "is_root_access_key", "e6ae3b63335593c0", lambda _: lambda key: not key or key == root_key)
    sts = load("ministack.services.sts")
    share(evaluator, "is_root_access_key", sts)
    replace(sts, "get_state", "f3da97bad4fd9982", lambda _: lambda: {"sessions": copy.deepcopy(sts._sessions)})
    replace(sts, "load_persisted_state", "95de4b803bf729ba", lambda _: lambda data: sts._sessions.update(data.get("sessions", {})))
    app = load("ministack.app")
    replace(app, "_handle_admin_reset", "41b8f2f423862355", lambda _: _refuse("/_ministack/reset"))
    replace(app, "_handle_admin_config_request", "68ee50c5f03b7034", lambda _: _refuse("/_ministack/config"))


def _refuse(refused: str) -> Callable[..., Any]:
    async def handle(path: str, *_: Any) -> Any:
        if path != refused:
            return None
        return 403, {"Content-Type": "application/json"}, json.dumps({"message": "not available"}).encode()

    return handle
