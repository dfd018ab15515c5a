"""Starts the program as it is started at boot, and says which modules that imports."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

CHECKOUT = Path(__file__).parents[2]
SCRIPT = CHECKOUT / "init/bin/upgradeconverter.py"
PACKAGES = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
ISOLATED = ("-I", "-S")
# Where the units expect the environment that the program was installed in.
INSTALLED = "/usr/lib/upgradeconverter"
_IMPORTED = "import time:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a start said and imported, beyond what the interpreter imports for itself when it is started in the same way."""

    status: int
    said: str
    errors: str
    modules: frozenset[str]


def line_of(unit: str) -> str:
    """Return the line by which a boot unit starts the program."""
    text = (CHECKOUT / f"init/systemd/upgradeconverter-{unit}.service").read_text(encoding="utf-8")
    return next(line for line in text.splitlines() if line.startswith("ExecStart=")).removeprefix("ExecStart=")


def lay_out(top: Path) -> Path:
    """Lay the script and the packages out below `top` as an installation does; returns the script."""
    script, packages = top / "bin/upgradeconverter", top / PACKAGES
    script.parent.mkdir(parents=True)
    packages.mkdir(parents=True)
    script.write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    for name in ("upgradeconverter", "migrations"):
        (packages / name).symlink_to(CHECKOUT / name)
    return script


def start(
    command: Iterable[str], *words: str, python: str = sys.executable, folder: str | None = None, **environment: str
) -> Start:
    """Start `python` with the words of `command` and of the program, in `folder`."""
    *flags, program = command
    done = _run([python, *flags, program, *words], folder, environment)
    bare = _run([python, *flags, "-c", "pass"], folder, environment)
    lines = done.stderr.splitlines(keepends=True)
    return Start(
        status=done.returncode,
        said=done.stdout,
        errors="".join(line for line in lines if not line.startswith(_IMPORTED)),
        modules=_modules(done.stderr) - _modules(bare.stderr),
    )


def _run(command: list[str], folder: str | None, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "UPGRADECONVERTER_", "PYTHON"))}
    # Not by the environment, which `-I` ignores; the interpreter says it before it ends, however it ends.
    command[1:1] = ["-X", "importtime"]
    return subprocess.run(
        command, env={**kept, **environment}, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


def _modules(errors: str) -> frozenset[str]:
    rows = (line.rpartition("|")[2].strip() for line in errors.splitlines() if line.startswith(_IMPORTED))
    return frozenset(rows)
