"""Sends a run to the registry while it goes on: from a thread of its own, so that training neither waits for it nor fails by it.

Rules:
- What is sent is read from the run's folder, which has everything before it could be sent. Whatever the registry does not take stays
  there, and `attestry runs push FOLDER` sends the rest.
- Nothing that goes wrong here is raised where something is logged. It is kept as `problem`, and told when the run ends.
- A registry that does not answer is asked again after pauses that grow. A run that goes on for long is sent in larger pieces, since the
  number of its batches is limited.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from attestry.client.routes.runs import RunRoutes

EVERY: Final = 5.0
"""Seconds between two looks at what is new."""

LATER: Final = 60.0
"""The same after `OFTEN` looks, and the longest pause after a failure."""

OFTEN: Final = 1000
END_SECONDS: Final = 30.0
"""How long the end of a run waits until the rest is sent."""


class RunSender:
    """Sends one run until it is told to finish.

    Args:
        folder: the run's folder.
        connect: gives the registry; it is called in the thread, since importing a client takes a moment.
    """

    def __init__(self, folder: Path, connect: Callable[[], RunRoutes]) -> None:
        self.problem = "nothing was sent yet"
        self._folder = folder
        self._connect = connect
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send, name=f"attestry-run-{folder.name[:8]}", daemon=True)
        self._thread.start()

    def finish(self, seconds: float = END_SECONDS) -> str:
        """Have the rest sent, and return why it was not; empty where it was.

        Args:
            seconds: how long to wait for it.
        """
        self._ended.set()
        self._thread.join(seconds)
        return "the registry did not answer in time" if self._thread.is_alive() else self.problem

    def _send(self) -> None:
        from attestry.client.runs_push import RunPusher

        pusher, client, looks, pause = RunPusher(self._folder), None, 0, EVERY
        while True:
            ending = self._ended.wait(pause)
            try:
                client = client or self._connect()
                pusher.push(client)
            except Exception as error:  # noqa: BLE001 - whatever it is, training goes on, and the folder has everything
                self.problem, pause = f"{type(error).__name__}: {error}", min(LATER, pause * 2)
            else:
                looks += 1
                self.problem, pause = "", EVERY if looks < OFTEN else LATER
            if ending:
                return
