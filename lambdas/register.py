"""An uploaded manifest (S3 `Object Created` through EventBridge) becomes a candidate, a version and a running pipeline."""

from __future__ import annotations

from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.platform import current_platform
from attestry.aws.world import World
from attestry.domain.names import FolderNaming
from attestry.usecases.register import Registrar, UploadedManifest

world = World()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Register the manifest that the event names; other objects are passed over."""
    configure_logging(context)
    uploaded = event["detail"]["object"]
    upload = UploadedManifest(str(uploaded["key"]), uploaded.get("version-id"), world.settings.account)
    if not upload.is_manifest:
        return {"state": "PASSED_OVER"}
    naming = FolderNaming(world.settings.environment.get("ATTESTRY_FOLDER_NAMING") or FolderNaming.REVISION_AND_EXECUTION)
    registrar = Registrar(
        world.meta,
        world.attestor,
        world.store,
        world.pipeline,
        world.notifier,
        current_platform(),
        naming,
        signed_tiers=world.settings.signed_approval_tiers,
        sandbox_memory_mib=world.settings.number("ATTESTRY_SANDBOX_MEMORY_MIB", 0) or None,
        jobs=world.settings.jobs,
    )
    return registrar.register(upload, world.clock.now()).to_dict()
