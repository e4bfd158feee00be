"""The system's clock."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """`attestry.ports.Clock` over the machine's time, which Lambda keeps by the Amazon Time Sync Service."""

    def now(self) -> datetime:
        """Return the time in UTC."""
        return datetime.now(UTC)
