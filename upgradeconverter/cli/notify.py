"""Telling systemd how a run goes: what `systemctl status` shows, and that the time allowed for the start has to be longer.

The protocol is that of sd_notify(3): a datagram of lines to the socket that the environment names. A service that is over when it
is ready (`Type=oneshot`) says no `READY=1`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from socket import socket

VARIABLE = "NOTIFY_SOCKET"
# For so long (seconds) nothing may move before systemd gives the start up, as TimeoutStartSec= of the units says; longer than it
# takes who watches, so that there is a report.
PATIENCE = 360


class Notifier(Struct):
    """Tells systemd; the time limit is moved only where something has moved since it was moved last.

    Attributes:
        place: path of the socket, or its abstract name after an `@`.
    """

    place: str
    _moves: int = 0
    _socket: socket | None = None

    def tell(self, text: str, moves: int) -> None:
        """Show a sentence, and that so much has moved. Nobody there, or nobody who reads, is no failure."""
        lines = [f"STATUS={text}"]
        if moves > self._moves:
            lines.append(f"EXTEND_TIMEOUT_USEC={PATIENCE * 1_000_000}")
        with suppress(OSError, ValueError):
            self._open().sendto("\n".join(lines).encode(), self._address())
            self._moves = moves

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
