"""A share for each caller: a token bucket per identity, in the memory of one process.

What holds: one execution environment answers no caller more than `RATE` requests a second on average and `BURST` at once, and a dear
request counts as several. It costs no call and no row, and it is asked before anything is read.

What does not: each execution environment counts for itself, so a caller who is spread over n of them gets n shares; the platform starts no
more of them than there are requests at the same time. Across all of them the stage's throttle holds, for all callers together. A limit per
caller that holds exactly would cost a write per request.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from attestry.domain.errors import TooManyRequestsError

RATE: Final = 200.0
"""Requests a second. One process answers fewer on AWS; what is cut off is a caller who keeps it from everybody else."""

BURST: Final = 400.0
MAX_CALLERS: Final = 4096
COSTS: Final[Mapping[str, float]] = {
    "GET /v1/compliance": 40,
    "GET /v1/predictions/{id}/bundle": 20,
    "GET /v1/models/{model}/versions/{number}/bundle": 20,
    "POST /v1/policy-replay": 40,
    "GET /v1/predictions/{id}/trace": 5,
    "GET /v1/lineage": 10,
}
"""Route to how many requests it counts as; one where it is not here."""


class CallerShares:
    """The buckets of one process.

    Args:
        rate: requests a second and caller.
        burst: how many at once.
        clock: monotonic seconds.
    """

    def __init__(self, rate: float = RATE, burst: float = BURST, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, context: Mapping[str, Any], route: str) -> None:
        """Count a request.

        Args:
            context: the gateway's request context, which says whom it authenticated.
            route: method and path template.

        Raises:
            TooManyRequestsError: the caller has used up their share, and when there is enough of it again.
        """
        caller, now, cost = _caller(context), self._clock(), min(COSTS.get(route, 1.0), self._burst)
        left, since = self._buckets.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        enough = left >= cost
        self._buckets[caller] = (left - cost if enough else left, now)
        if len(self._buckets) > MAX_CALLERS:
            # Who has not called for the longest time has a full bucket again, or nearly.
            self._buckets.popitem(last=False)
        if not enough:
            seconds = max(1, math.ceil((cost - left) / self._rate))
            raise TooManyRequestsError(
                f"that is more than {self._rate:.0f} requests a second of one caller; come back in {seconds} s", retry_after_seconds=seconds
            )


def _caller(context: Mapping[str, Any]) -> str:
    authorizer = context.get("authorizer") or {}
    iam, holder = authorizer.get("iam") or {}, authorizer.get("lambda") or {}
    return f"{iam.get('userId') or ''}|{holder.get('login') or ''}"


SHARES: Final = CallerShares()
"""Those of this process."""
