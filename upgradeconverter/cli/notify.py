"""Telling systemd how a run goes: what `systemctl status` shows, and that the time allowed for the start has to be longer.

The protocol is that of sd_notify(3): a datagram of lines to the socket that the environment names. A service that is over when it
is ready (`Type=oneshot`) says no `READY=1`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from upgradeconverter.engine.progress import Reading

VARIABLE = "NOTIFY_SOCKET"
# For so long (seconds) nothing may move before systemd gives the start up; TimeoutStartSec= of the units says the same.
PATIENCE = 300


class Notifier(Struct):
    """Tells systemd; the time limit is moved only where something has moved since it was moved last.

    Attributes:
        place: path of the socket, or its abstract name after an `@`.
        text_of: makes the status line.
    """

    place: str
    text_of: Callable[[Reading], str]
    _moves: int = 0
    _socket: socket | None = None

    def tell(self, reading: Reading) -> None:
        """Tell of one reading. Nobody there, or nobody who reads, is no failure: the next one may get through."""
        lines = [f"STATUS={self.text_of(reading)}"]
        if reading.moves > self._moves:
            lines.append(f"EXTEND_TIMEOUT_USEC={PATIENCE * 1_000_000}")
        with suppress(OSError, ValueError):
            self._open().sendto("\n".join(lines).encode(), self._address())
            self._moves = reading.moves

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()

    def _open(self) -> socket:
        if self._socket is None:
            import socket

            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        return self._socket

    def _address(self) -> str:
        return f"\0{self.place[1:]}" if self.place.startswith("@") else self.place
