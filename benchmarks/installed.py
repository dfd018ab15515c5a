"""Installs the program as a device has it: a wheel, in an environment of its own, with nothing that only developers need."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from .errors import BrokenError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REPOSITORY = Path(__file__).resolve().parents[1]
_NAME = "upgradeconverter"


def alone(scratch: Path) -> Path:
    """Install the program without anything that it needs of others; returns the folder of its commands.

    A start with nothing to do loads none of it, and one that does fails.
    """
    place = scratch / "installed"
    for words in (
        [sys.executable, "-m", "venv", "--without-pip", str(place)],
        [sys.executable, "-m", "pip", "-q", "--python", str(place / "bin/python"), "install", "--no-deps", str(_REPOSITORY)],
    ):
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            raise BrokenError(what="the installation", found=done.stderr)
    return place / "bin"


def whole(scratch: Path) -> Path:
    """Install the program and, by links to the packages that are here, what it needs; returns the folder of its commands."""
    commands = alone(scratch)
    (packages,) = (commands.parent / "lib").glob("python*/site-packages")
    for name in needed(_NAME):
        for top in tops_of(name):
            if not (packages / top.name).exists():
                os.symlink(top, packages / top.name)
    return commands


def needed(name: str) -> set[str]:
    """Return the distributions that one needs on this machine, extras left out, and what those need."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for text in distribution(waiting.pop()).requires or ():
            wanted = Requirement(text)
            if wanted.name in found or (wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})):
                continue
            try:
                distribution(wanted.name)
            except PackageNotFoundError as error:
                raise BrokenError(what="the installation", found=f"{wanted.name} is not installed") from error
            found.add(wanted.name)
            waiting.append(wanted.name)
    return found


def tops_of(name: str) -> Iterator[Path]:
    """Yield the files and folders that a distribution has put directly into the folder of packages."""
    package = distribution(name)
    for top in sorted({file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}):
        yield Path(str(package.locate_file(top))).resolve()
