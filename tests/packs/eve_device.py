"""A device with a root, a configuration partition and what the release brings, in a directory, without root."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.disktree import capture
from tests.support.olddisk import checked
from upgradeconverter.errors import EXIT_DONE

if TYPE_CHECKING:
    from pathlib import Path

TIME = 1_594_000_000


@dataclass
class Device:
    """A device with a configuration partition."""

    top: Path

    @classmethod
    def at(cls, top: Path) -> Device:
        """Make an empty one."""
        for path in ("persist/vault", "config", "eve"):
            (top / path).mkdir(parents=True)
        return cls(top)

    def write(self, path: str, content: bytes, later: int = 0) -> None:
        """Write a file, so many seconds later than the earliest."""
        file = self.top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        os.utime(file, (TIME + later, TIME + later))

    def do(self, *words: str, target: str = "8.9.0") -> dict[str, Any]:
        """Start the program; it does what it is told to."""
        status, document = self.start(*words, target=target)
        assert status == EXIT_DONE
        return document

    def start(self, *words: str, target: str = "8.9.0") -> tuple[int, dict[str, Any]]:
        """Start the program; return how it ends."""
        places = ("--outside", f"config={self.top / 'config'}", "--outside", f"eve={self.top / 'eve'}")
        return checked(*words, "-p", str(self.top / "persist"), "--target", target, *places)

    def files(self) -> list[str]:
        """Return what lies in the root, the program's own aside."""
        return [path for path, entry in capture(str(self.top / "persist")).items() if entry["kind"] == "file"]

    def read(self, path: str) -> bytes:
        """Return what a file in the root says."""
        return (self.top / "persist" / path).read_bytes()
