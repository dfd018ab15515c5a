"""Measures planning alone: dry runs for ever more volumes, which cost as much for each if the planner is linear."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from . import grounds
from .cases import MIB, count
from .devices import TARGET, Device
from .errors import BrokenError
from .figures import Found, Result, Sample, ratio
from .moving import check_room
from .running import count_calls, run
from .ways import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .figures import Wanted
    from .grounds import Ground

NAME = "planning"
ABOUT = "a dry run for so many volumes of 1 MiB, all holes"
ROUNDS = 5
VOLUMES = (1_000, 10_000, 100_000)
_BUDGET = 512 * MIB


def measure(ground: Ground, wanted: Wanted, scratch: Path) -> Result:
    """Measure dry runs on one ground; what a start without any volume costs is no cost of volumes, and taken off."""
    check_room(scratch, round(_BUDGET * max(wanted.scale, 0.1)))
    numbers = sorted({0, *(count(each, wanted.scale) for each in VOLUMES)})
    found = {number: Found(name=f"{number:,} volumes", samples={}) for number in numbers}
    with ExitStack() as stack:
        commands = {number: _command(stack.enter_context(_disk(ground, scratch, number))) for number in numbers}
        for number, command in commands.items():
            ended = run([command], scratch)
            _check(number, ended.output, ended.status, ended.errors)
            if wanted.count and number == numbers[1]:
                found[number].calls = calls = count_calls([command], scratch)[1]
                found[number].calls_per_file = sum(calls.values()) / number
        for each in range(wanted.rounds or ROUNDS):
            for number, command in commands.items():
                ended = run([command], scratch)
                found[number].samples[each] = Sample(
                    seconds=ended.seconds, cpu=ended.cpu, largest=ended.largest, together=ended.together
                )
    _compare(found)
    return Result(
        case=NAME,
        about=ABOUT,
        ground=ground.name,
        ratio=f"cost per volume / that of {numbers[1]:,}",
        cache="everything warm",
        scale=wanted.scale,
        files=numbers[-1],
        size=0,
        found=[*found.values()],
    )


def _compare(found: dict[int, Found]) -> None:
    """Set the ratios, and say what a volume costs."""
    start = found[0].seconds()
    each = {
        number: {turn: (seconds - start[turn]) / number for turn, seconds in one.seconds().items()}
        for number, one in found.items()
        if number
    }
    base = each[min(each)]
    for number, costs in each.items():
        found[number].ratio = ratio(costs, base)
        middle = sorted(costs.values())[len(costs) // 2]
        found[number].about = f"{middle * 1e6:.1f} microseconds for each volume, start of the program taken off"


def _command(root: Path) -> list[str]:
    return [program(), "plan", "post-vault", "-p", str(root), "--target", TARGET, "--output", "json"]


def _check(number: int, output: str, status: int, errors: str) -> None:
    moves = 0 if status else sum(item["operation"] == "Move" for item in json.loads(output)["items"])
    if moves != number:
        raise BrokenError(what=f"planning {number} volumes", found=errors or f"{moves} moves are planned, status {status}")


@contextmanager
def _disk(ground: Ground, scratch: Path, number: int) -> Iterator[Path]:
    """Yield the root of a device with so many volumes."""
    image = scratch / f"image-{number}"
    grounds.make(image, ground, room=0, files=2 * number)
    with grounds.mounted(image, scratch / f"disk-{number}", ground) as root:
        image.unlink()
        device = Device(str(root))
        for _ in range(number):
            device.volume(MIB, [])
        device.finish()
        yield root
