"""What the boot units start, with the paths of a trial in the place of the device's."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import BrokenError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FOLDER = Path(__file__).resolve().parents[1] / "init/systemd"
_ROOT, _REPORTS = "/persist", "/run/upgradeconverter"
_NAMES = ("pre-vault", "post-vault", "confirm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A unit: what it starts, with which environment, and the conditions without which it starts nothing."""

    name: str
    command: list[str]
    environment: dict[str, str]
    conditions: list[tuple[str, str]]


def read(text: str, name: str) -> Unit:
    """Return what a service unit says; BrokenError unless it starts exactly one command."""
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            said.setdefault(key.strip(), []).append(value.strip())
    commands = [shlex.split(each) for each in said.get("ExecStart", ())]
    if len(commands) != 1:
        raise BrokenError(what=name, found=f"{len(commands)} ExecStart lines, expected one")
    words = (word for line in said.get("Environment", ()) for word in shlex.split(line))
    return Unit(
        name=name,
        command=commands[0],
        environment={key: value for key, _, value in (word.partition("=") for word in words)},
        conditions=[(key, value) for key, values in said.items() if key.startswith("Condition") for value in values],
    )


def services(folder: Path = FOLDER) -> list[Unit]:
    """Return all services, by name, each with what they have in common."""
    common = "".join(place.read_text(encoding="utf-8") for place in sorted(folder.glob("*-.service.d/*.conf")))
    return [read(place.read_text(encoding="utf-8") + common, place.stem) for place in sorted(folder.glob("*.service"))]


def report(command: Sequence[str]) -> str | None:
    """Return the file in which a command leaves its report, None where it prints that."""
    if "--report" not in command:
        return None
    return f"{command[command.index('--report') + 1]}/{next(word for word in command if word in _NAMES)}.json"


def starts(unit: Unit, root: str) -> bool:
    """Return whether the unit would start a process at all: every condition holds, and one of those with a bar, systemd.unit(5).

    BrokenError for a condition that cannot be decided here.
    """
    plain: list[bool] = []
    triggers: list[bool] = []
    for key, value in unit.conditions:
        if key not in _CONDITIONS:
            raise BrokenError(what=unit.name, found=f"{key} is not known to the benchmarks")
        wanted = value.removeprefix("|").removeprefix("!")
        holds = _CONDITIONS[key](_moved(wanted, root)) != value.removeprefix("|").startswith("!")
        (triggers if value.startswith("|") else plain).append(holds)
    return all(plain) and (any(triggers) or not triggers)


def _on_command_line(wanted: str) -> bool:
    words = Path("/proc/cmdline").read_text(encoding="utf-8").split()
    return wanted in words or ("=" not in wanted and any(word.startswith(f"{wanted}=") for word in words))


_CONDITIONS: dict[str, Callable[[str], bool]] = {
    "ConditionPathExists": os.path.exists,
    "ConditionPathExistsGlob": lambda path: bool(glob(path)),
    "ConditionPathIsDirectory": os.path.isdir,
    "ConditionDirectoryNotEmpty": lambda path: os.path.isdir(path) and bool(os.listdir(path)),
    "ConditionKernelCommandLine": _on_command_line,
}


def reports(root: str) -> str:
    """Return where the units of a trial leave their reports."""
    return f"{root}-reports"


def command(unit: Unit, installed: Path, root: str) -> list[str]:
    """Return the command of a unit for a trial: its interpreter is the one beside `installed`, its files are looked for there."""
    words = [_word(word, installed, root) for word in unit.command]
    named = any(word in ("-p", "--persist") or word.startswith("--persist=") for word in words)
    return words if named else [*words, "-p", root]


def _word(word: str, installed: Path, root: str) -> str:
    if not word.startswith("/"):
        return word
    if word == _ROOT or word.startswith(f"{_ROOT}/"):
        return _moved(word, root)
    if word == _REPORTS:
        return reports(root)
    if os.path.basename(word).startswith("python"):
        return str(installed / "python3")
    return _same_file(word, installed.parent)


def _moved(path: str, root: str) -> str:
    return root + path.removeprefix(_ROOT) if path == _ROOT or path.startswith(f"{_ROOT}/") else path


def _same_file(path: str, prefix: Path) -> str:
    """Return the installed file with the longest end of its path in common; BrokenError where there is none."""
    parts = Path(path).parts[1:]
    for start in range(len(parts)):
        end = "/".join(parts[start:])
        found = sorted(prefix.glob(f"**/{end}"))
        if found:
            return str(found[0])
    raise BrokenError(what=path, found=f"nothing of that name was installed in {prefix}")
