"""What this process runs on: the functions that name an environment and the one that builds it run on the same."""

from __future__ import annotations

import platform
import sys


def current_platform() -> tuple[str, str]:
    """Return Python version without the patch and platform, for example `("3.13", "linux_aarch64")`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}", f"{sys.platform}_{platform.machine()}"
