"""A log of bounded size: what came first and what came last, with a note of how much is missing between."""

from __future__ import annotations

_NOTE_BYTES = 160


class BoundedLog:
    """Takes any number of bytes and keeps at most `max_bytes`.

    Args:
        max_bytes: limit of what `content` returns, the note included.
    """

    def __init__(self, max_bytes: int) -> None:
        room = max(0, max_bytes - _NOTE_BYTES)
        self._max_bytes = max_bytes
        self._head_room = room // 2
        self._tail_room = room - self._head_room
        self._head = bytearray()
        self._tail = bytearray()
        self.received = 0

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self.received += len(chunk)
        if missing := self._head_room - len(self._head):
            self._head += chunk[:missing]
            chunk = chunk[missing:]
        self._tail += chunk
        # Trimming only at twice the room keeps the cost of a byte constant, however small the chunks are.
        if len(self._tail) > 2 * self._tail_room + _NOTE_BYTES:
            del self._tail[: len(self._tail) - self._tail_room - _NOTE_BYTES]

    def content(self) -> bytes:
        """Return the log as UTF-8; bytes that are not, are shown as `?`, so it is never longer than what came in."""
        if self.received <= self._max_bytes:
            kept = bytes(self._head + self._tail)
        else:
            tail = self._tail[-self._tail_room :] if self._tail_room else b""
            left_out = self.received - len(self._head) - len(tail)
            note = f"\n[attestry: {left_out} bytes left out here; the log is limited to {self._max_bytes} bytes]\n"
            kept = bytes(self._head) + note.encode() + bytes(tail)
        return kept.decode("utf-8", "replace").replace("\ufffd", "?").encode()[: self._max_bytes]

    def last_line(self, max_chars: int = 500) -> str:
        """Return the last line that is not blank, to name a cause with."""
        lines = bytes((self._head + self._tail)[-8192:]).decode("utf-8", "replace").split("\n")
        return next((line.strip()[:max_chars] for line in reversed(lines) if line.strip()), "")
