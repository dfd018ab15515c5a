"""Measures a start with nothing to do: bare interpreter, installed command, and what each boot unit starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import units
from .devices import Device
from .errors import BrokenError
from .figures import Found, Result, Sample, ratio
from .installed import alone
from .running import plain_environment, run
from .ways import program

if TYPE_CHECKING:
    from collections.abc import Callable

    from .figures import Wanted

NAME = "idle"
ABOUT = "a start with nothing to do, whole process"
ROUNDS = 40
BARE = "bare interpreter"
_REPOSITORY = Path(__file__).resolve().parents[1]
_KIB = 1 << 10
Start = tuple[list[str], dict[str, str]]


def converted(scratch: Path) -> str:
    """Build a small device and convert it as far as it goes; returns its root."""
    root = scratch / "persist"
    (root / "vault").mkdir(parents=True)
    device = Device(str(root))
    device.volume(64 * _KIB, [(0, 64 * _KIB)])
    device.finish()
    # The first converts; what each phase finds after that is noted in the stamp.
    for phase in ("all", "pre-vault", "post-vault", "all"):
        ended = run([[program(), phase, "-p", str(root)]], scratch)
        if ended.status:
            raise BrokenError(what="the conversion", found=ended.errors)
    return str(root)


def starts(installed: Path, root: str, new: str) -> dict[str, Start | None]:
    """Return what is compared, by name; None where the conditions of a unit decide and there is no process.

    `root` is that of a device that was converted, `new` that of one on which there was never anything.
    """
    plain = plain_environment()
    found: dict[str, Start | None] = {
        BARE: ([str(installed / "python3"), "-I", "-S", "-c", "pass"], plain),
        "installed command": ([str(installed / "upgradeconverter"), "-p", root], plain),
    }
    for unit in units.services():
        name = unit.name.removeprefix("upgradeconverter-")
        command = (units.command(unit, installed, root), plain | unit.environment)
        found[f"unit {name}"] = command if units.starts(unit, root) else None
        if not units.starts(unit, new):
            found[f"unit {name}, new device"] = None
    return found


def measure(wanted: Wanted, scratch: Path, installer: Callable[[Path], Path] = alone) -> Result:
    """Measure all starts, in turn; `installer` says where the program is."""
    new = scratch / "new"
    (new / "vault").mkdir(parents=True)
    # As systemd makes it.
    Path(units.reports(str(scratch / "persist"))).mkdir()
    compared = starts(installer(scratch), converted(scratch), str(new))
    found = {name: Found(name=name, samples={}, about=_about(start, scratch)) for name, start in compared.items()}
    real = {name: start for name, start in compared.items() if start is not None}
    for name, start in real.items():
        _check(name, start, scratch)
    for number in range(wanted.rounds or ROUNDS):
        for name, (command, environment) in real.items():
            ended = run([command], scratch, environment)
            found[name].samples[number] = Sample(seconds=ended.seconds, cpu=ended.cpu, largest=ended.largest)
    for each in found.values():
        each.ratio = ratio(each.seconds(), found[BARE].seconds())
    return Result(
        case=NAME,
        about=ABOUT,
        ground="any",
        ratio=f"this / {BARE}",
        cache="everything warm",
        scale=1.0,
        files=0,
        size=0,
        found=[*found.values()],
    )


def _about(start: Start | None, scratch: Path) -> str:
    if start is None:
        return "no process: a condition of the unit decides"
    return " ".join(word.removeprefix(f"{scratch}/") for word in start[0])


def _check(name: str, start: Start, scratch: Path) -> None:
    """Start it twice, which also warms it up, and see that it finds nothing to do."""
    for _ in range(2):
        ended = run([start[0]], scratch, start[1])
        left = units.report(start[0])
        said = (Path(left).read_text(encoding="utf-8") if left is not None else ended.output).replace("-", " ")
        if ended.status or (name != BARE and "nothing to do" not in said):
            raise BrokenError(what=name, found=ended.errors or ended.output)
