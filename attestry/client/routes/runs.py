"""Development runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attestry.client.connection import Connection
from attestry.client.paths import given, path_part

_PATH = "/v1/runs"


class RunRoutes(Connection):
    """Development runs: told by their owners, and read. What is said of them stays claimed."""

    def start_run(self, run: str, experiment: str, **said: Any) -> Any:
        """Start a run; the same start again answers the run as it is.

        Args:
            run: its ID, 32 hex digits, made by the caller.
            experiment: what it belongs to.
            said: `begun`, `parameters`, `tags`, `environment`, `source`.
        """
        return self.post(_PATH, {"run": run, "experiment": experiment, **given(**said)})

    def change_run(self, run: str, **said: Any) -> Any:
        """Add `parameters`, `tags` or `files` to a run of one's own, or end it by `state`, `error` and `ended`."""
        return self.call("PATCH", f"{_PATH}/{path_part(run)}", body=given(**said))

    def log_points(self, run: str, batch: str, points: Sequence[Mapping[str, Any]], *, first: int | None = None) -> Any:
        """Add a batch of points (`name`, `value`, `step`, `at`) to a run of one's own; one that is there already counts once.

        Args:
            run: the run's ID.
            batch: ID of the batch, 32 hex digits, made by the caller.
            points: 1 to 1,000; `NaN`, `Infinity` and `-Infinity` are texts.
            first: how many points the run has before these; where it has another number they are refused.
        """
        told = {"batch": batch, "points": [dict(point) for point in points], **given(first=first)}
        return self.post(f"{_PATH}/{path_part(run)}/metrics", told)

    def runs(self, *, experiment: str | None = None, owner: str | None = None, state: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield runs, the newest first, a page when it is needed."""
        return self.every(_PATH, "runs", given(experiment=experiment, owner=owner, state=state))

    def run(self, run: str) -> dict[str, Any]:
        """Return a run, without its points."""
        shown: dict[str, Any] = self.get(f"{_PATH}/{path_part(run)}")
        return shown

    def run_metric(self, run: str, metric: str) -> Iterator[dict[str, Any]]:
        """Yield the points of a metric in the order in which they were logged, a page when it is needed."""
        return self.every(f"{_PATH}/{path_part(run)}/metrics", "points", {"metric": metric})
