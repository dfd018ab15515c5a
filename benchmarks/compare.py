"""Compares whole processes in alternation, on the same disk and in the same run, and reports ratios.

    python benchmarks/compare.py idle [ROUNDS]        a start with nothing to do, against the bare interpreter
    python benchmarks/compare.py move [ROUNDS] [MIB]  a small device into a real vault, against mv, and cp -a with sync

`move` needs root: it makes an ext4 file system with an encrypted vault in a loop device. Times are of the machine that it
runs on; only ratios of the same run can be compared.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.support import vaults  # noqa: E402 - found by the path above
from tests.support.disktree import build, parse  # noqa: E402

SAMPLE = HERE.parent / "fixtures/eve/sample_device/before.tree"
PROGRAM = [str(Path(sys.executable).parent / "upgradeconverter")]


def _timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def _report(times: dict[str, list[float]], base: str) -> None:
    print(f"{'':<24} {'median ms':>10} {'quartiles ms':>18} {'against ' + base:>24}")
    for name, found in times.items():
        low, middle, high = statistics.quantiles(found, n=4)
        ratio = statistics.median(mine / other for mine, other in zip(found, times[base], strict=True))
        print(f"{name:<24} {middle * 1000:>10.1f} {low * 1000:>7.1f} to {high * 1000:<6.1f} {ratio:>23.2f}x")


def idle(rounds: int) -> None:
    """Compare starts on a converted disk."""
    with tempfile.TemporaryDirectory(prefix="upgradeconverter-") as folder:
        build(parse(SAMPLE.read_text()), folder)
        start = [*PROGRAM, "-p", folder, "--target", "latest"]
        for _ in range(2):
            _timed(start)
        bare = [sys.executable, "-I", "-S", "-c", "pass"]
        commands = {"bare interpreter": bare, "nothing to do": start}
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                times[name].append(_timed(command))
    _report(times, "bare interpreter")


def _fill(top: str, mib: int) -> None:
    build(parse(SAMPLE.read_text()), top)
    image = next(path for path in sorted(Path(top, "img").iterdir()) if path.name.startswith("0ddcfa"))
    with image.open("r+b") as stream:
        for _ in range(mib):
            stream.write(os.urandom(1 << 20))
    os.sync()


def _ours(top: str) -> list[list[str]]:
    return [[*PROGRAM, "-p", top, "--target", "latest"]]


def _mv(top: str) -> list[list[str]]:
    sources = [str(path) for path in (*Path(top, "img").iterdir(), *Path(top, "runx/pods/prepared").iterdir())]
    return [["mkdir", f"{top}/vault/volumes"], ["mv", *sources, f"{top}/vault/volumes"]]


def _cp(top: str) -> list[list[str]]:
    copy = _mv(top)
    sources = copy[1][1:-1]
    return [copy[0], ["cp", "-a", *copy[1][1:]], ["sync", "-f", top], ["rm", "-r", *sources], ["sync", "-f", top]]


def move(rounds: int, mib: int) -> None:
    """Compare conversions of a fresh disk each time."""
    ways: dict[str, Callable[[str], list[list[str]]]] = {
        "mv (not durable)": _mv,
        "cp -a, sync, rm, sync": _cp,
        "upgradeconverter": _ours,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(prefix="upgradeconverter-") as folder:
        for _ in range(rounds):
            for name, commands in ways.items():
                top = f"{folder}/persist"
                with vaults.mounted(f"{folder}/image", top, size=f"{3 * mib + 64}M"):
                    identifier = vaults.add_key(top)
                    Path(top, "vault").mkdir()
                    vaults.encrypt(f"{top}/vault", identifier)
                    _fill(top, mib)
                    times[name].append(sum(_timed(command) for command in commands(top)))
                shutil.rmtree(top)
    _report(times, "cp -a, sync, rm, sync")


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("idle", "move"))
    parser.add_argument("rounds", type=int, nargs="?", default=20)
    parser.add_argument("mib", type=int, nargs="?", default=64, help="size of the volume that is moved")
    arguments = parser.parse_args()
    if arguments.what == "idle":
        idle(arguments.rounds)
    else:
        move(arguments.rounds, arguments.mib)


if __name__ == "__main__":
    main()
