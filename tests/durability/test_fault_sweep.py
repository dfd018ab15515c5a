"""A sample of `make sweep`: nothing is bad, the small disks reach all that there is, and known mistakes are caught."""

from __future__ import annotations

import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from tests.durability.small_disks import small_disks
from upgradeconverter.model.operation import Operation
from upgradeconverter.model.plan import Shape

pytestmark = [pytest.mark.root, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]
SEED = 20202
# Of each disk's faults, one in so many.
EVERY = {
    "everything bound": 300,
    "everything plain": 150,
    "everything fscrypt": 150,
    "multi_drive_app plain": 150,
    "rayos plain": 200,
    "large things full": 400,
}
# What a step may be like besides its operation and shape, and how it must then be reached.
KINDS = (
    "copy by copy of itself",
    "copy by link of itself",
    "copy with additions",
    "copy with omissions",
    "copy with sha256",
    "create by copy of copy",
    "create by copy of directory",
    "create by copy of file",
    "create by copy of symlink",
    "create with twin",
    "rename with omissions",
    "retire by copy of copy",
    "retire by copy of directory",
    "retire by copy of file",
    "displace with keeps",
    "operation Quarantine",
)


def _sweep(*words: str) -> subprocess.CompletedProcess[str]:
    # Measuring coverage of processes that are killed on purpose leaves damaged files.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-m", "tests.durability.fault_sweep", "--jobs", "1", *words]
    return subprocess.run(command, check=False, cwd=REPOSITORY, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("disk", list(small_disks()))
def test_nothing_is_bad(disk: str) -> None:
    """Whatever fails or dies, nothing is lost, nothing untrue is said, and the next start ends as if nothing had happened."""
    done = _sweep("--disk", disk, "--every", str(EVERY[disk]), "--seed", str(SEED))
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 bad, " in done.stdout.splitlines()[-1]


def test_everything_is_reached() -> None:
    """The small disks take every operation and every shape; whoever adds one adds a disk, or an entry, that takes it."""
    done = _sweep("--reach")
    assert done.returncode == 0, done.stderr
    operations = {f"operation {operation.__name__}" for operation in typing.get_args(Operation)}
    wanted = operations | {f"shape {shape}" for shape in Shape} | set(KINDS)
    assert wanted - set(done.stdout.splitlines()) == set()


@pytest.mark.parametrize(
    ("mistake", "call"),
    [pytest.param("holes", "lseek"), pytest.param("no order", "rename"), pytest.param("no way back", "rename")],
)
def test_known_mistakes_are_caught(mistake: str, call: str) -> None:
    """The sweep is not blind: with a mistake built in on purpose it finds bad cases where there are none without."""
    words = ("--disk", "everything bound", "--story", ": run", "--call", call, "--every", "8", "--seed", str(SEED))
    done = _sweep(*words, "--mistake", mistake)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BAD" in done.stdout, done.stderr
