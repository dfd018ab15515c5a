"""Cuts the power of a whole machine many times and says what that did: `make boot-test`.

    python -m tests.machine.sweep [--cuts N] [--seed N] [--jobs N] [--evidence FILE] [--keep FOLDER]
    python -m tests.machine.sweep --again FOLDER

A machine is Debian's kernel for clouds in qemu, with systemd as its first process, the units of `init/systemd`, and the program
installed as `init/README.md` says. Its data disk is an old EVE device whose vault is locked until a unit unlocks it; qemu writes
down all that reaches it. The power is cut at a moment by chance, a state that a power cut may leave is made of what was written
down, and the machine boots from that: again and again, until a boot comes to its end. Then the disk has to be what an undisturbed
life gives.

After each boot the host looks at further states that it may have left, and lets the program go on there. Each state goes through
e2fsck as well. The exit status is 1 when something was bad, or when a planted mistake was not seen. What is bad is kept in a
folder: the disk before that boot, all that was written down, and the choice that was made of it.

Needs root, Debian's mirror and PyPI's, and the tools of `install-tools.sh --machine`. No virtualisation by the host is needed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.machine.chain import ChainSeen, Rig
from tests.machine.controls import CONTROLS
from tests.machine.disk import lists
from tests.machine.image import Machine, machine
from tests.powercut.stories import REPOSITORY
from tests.powercut.sweep import _bench, _clean_up_after_the_dead, commit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.machine.guest import Pace

NEEDED = (
    "qemu-system-x86_64",
    "mmdebstrap",
    "busybox",
    "cpio",
    "mkfs.ext4",
    "e2fsck",
    "debugfs",
    "chroot",
    "apt-get",
    "dpkg-deb",
    "cmp",
)

_rig: Rig | None = None


def missing() -> list[str]:
    """Return what is not there without which no machine can be started."""
    found = [name for name in NEEDED if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None]
    found += [path for path in ("/dev/loop-control",) if not os.path.exists(path)]
    return found + ([] if os.geteuid() == 0 else ["root"])


# --- what a process of the pool does -------------------------------------------------------------------------------------


def _begin(options: argparse.Namespace, built: Machine) -> None:
    """Make the place that one process works in."""
    global _rig  # noqa: PLW0603 - one for each process, made once
    _rig = Rig.of(_bench(f"{options.scratch}/job-{os.getpid()}", "bench", options.keep), built)


def _at_work() -> Rig:
    assert _rig is not None
    return _rig


def _calibrate() -> tuple[Pace, list[str]]:
    return _at_work().calibrate()


def _chain(number: int, seed: str, pace: Pace) -> ChainSeen:
    rig = _at_work()
    rig.pace = pace
    return rig.chain(number, seed)


def _control(name: str) -> dict[str, Any]:
    states, bad = CONTROLS[name](_at_work())
    return {name: {"states": states, "bad": bad, "caught": bad > 0}}


def _again(folder: str) -> list[str]:
    return _at_work().again(folder)


# --- who counts ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """What all chains together say."""

    cuts: int = 0
    boots: int = 0
    others: int = 0
    old: int = 0
    bad: list[dict[str, Any]] = field(default_factory=list)
    by: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, seen: ChainSeen) -> None:
        """Count one chain."""
        self.cuts += len(seen.cuts)
        self.boots += seen.boots
        self.others += seen.others
        self.old += seen.old
        for cut in seen.cuts:
            for name, word in (("cuts_by_moment", cut.moment), ("cuts_by_record", cut.record), ("cuts_by_form", cut.form)):
                self.by.setdefault(name, Counter())[word] += 1
        self.by.setdefault("chains_by_cuts", Counter())[str(len(seen.cuts))] += 1
        if seen.problems:
            self.bad.append({"chain": seen.number, "problems": seen.problems[:3], "kept": seen.kept})

    def evidence(self) -> dict[str, Any]:
        """Return the numbers."""
        return {
            "cuts": self.cuts,
            "boots": self.boots,
            "states_examined": self.cuts + self.others,
            "of_these_not_booted": self.others,
            "boots_of_the_old_system": self.old,
            "bad": len(self.bad),
            **{name: dict(sorted(counts.items())) for name, counts in sorted(self.by.items())},
        }


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _chains(pool: ProcessPoolExecutor, options: argparse.Namespace, pace: Pace, tally: Tally) -> None:
    """Let chains be made until there are enough cuts."""
    pending: set[Future[ChainSeen]] = set()
    number, began = 0, time.monotonic()
    while pending or tally.cuts < options.cuts:
        while tally.cuts < options.cuts and len(pending) < options.jobs:
            pending.add(pool.submit(_chain, number, str(options.seed), pace))
            number += 1
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            seen = future.result()
            tally.add(seen)
            for problem in seen.problems:
                _say(f"bad: chain {seen.number}: {problem[:300]}")
        passed = time.monotonic() - began
        _say(
            f"{tally.cuts} of {options.cuts} cuts, {tally.boots} boots, {len(tally.bad)} bad, {tally.cuts / passed * 60:.1f}/min"
        )


@contextmanager
def _pool(options: argparse.Namespace, built: Machine) -> Iterator[ProcessPoolExecutor]:
    """Offer the processes; whoever interrupts does not wait for them: their machines and mounts go with them."""
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("fork"), _begin, (options, built)) as pool:
        try:
            yield pool
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.kill()
            raise


def sweep(options: argparse.Namespace, built: Machine) -> dict[str, Any]:
    """Calibrate, let the jobs work, try the controls, and put together what they found."""
    began = time.monotonic()
    tally = Tally()
    controls: dict[str, Any] = {}
    with _pool(options, built) as pool:
        pace, problems = pool.submit(_calibrate).result()
        if problems:
            tally.bad.append({"chain": "undisturbed", "problems": problems})
            _say(f"bad: nothing disturbed it, but: {problems}")
        elif not options.only_controls:
            _chains(pool, options, pace, tally)
        for found in pool.map(_control, CONTROLS):
            controls |= found
            _say(f"control: {found}")
    return {
        **tally.evidence(),
        "problems": tally.bad,
        "controls": controls,
        "undisturbed_seconds": {name: round(seconds, 2) for name, seconds in pace.lasting.items()},
        "undisturbed_bytes": pace.writing,
        "seconds": round(time.monotonic() - began),
        "jobs": options.jobs,
        "seed": options.seed,
        "machine_kernel": built.release,
        "qemu": _qemu(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _qemu() -> str:
    done = subprocess.run(["qemu-system-x86_64", "--version"], check=True, capture_output=True, text=True)
    return done.stdout.split("\n", maxsplit=1)[0]


def _lines(evidence: dict[str, Any]) -> Iterator[str]:
    for name in ("cuts", "boots", "boots_of_the_old_system", "states_examined", "bad", "seconds"):
        yield f"{name.replace('_', ' '):<52} {evidence[name]:>8}"
    for name in ("cuts_by_moment", "cuts_by_record", "cuts_by_form", "chains_by_cuts"):
        yield name.replace("_", " ")
        yield from (f"  {word:<50} {count:>8}" for word, count in evidence.get(name, {}).items())
    yield f"{'controls, which must be bad':<52} {'states':>8} {'bad':>6}"
    yield from (f"  {word:<50} {one['states']:>8} {one['bad']:>6}" for word, one in evidence["controls"].items())


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").split("\n", maxsplit=1)[0]
    parser = argparse.ArgumentParser(prog="python -m tests.machine.sweep", description=about)
    parser.add_argument("--cuts", type=int, default=200, help="how many cuts at least")
    parser.add_argument(
        "--seed", type=int, default=1, help="of all choices; what the machine writes when is not in anybody's hand"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many machines at a time")
    parser.add_argument("--evidence", default=str(REPOSITORY / "docs/evidence/boot.json"), help="where the result goes")
    parser.add_argument("--keep", default=str(REPOSITORY / "build/boot-test"), help="where bad states go")
    parser.add_argument("--only-controls", action="store_true", help="only what must be seen")
    parser.add_argument("--again", metavar="FOLDER", help="examine one kept state again")
    return parser


def _with_scratch(options: argparse.Namespace, work: Callable[[Machine], int]) -> int:
    _say("building the machine, unless it is there")
    built = machine(lists())
    shelf = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
    _clean_up_after_the_dead(shelf)
    with tempfile.TemporaryDirectory(prefix=f"powercut-{os.getpid()}-machine-", dir=shelf) as scratch:
        options.scratch = scratch
        return work(built)


def _once_more(options: argparse.Namespace, built: Machine) -> int:
    with _pool(options, built) as pool:
        problems = pool.submit(_again, options.again).result()
    sys.stdout.write("\n".join((*problems, f"{len(problems)} problems")) + "\n")
    return 1 if problems else 0


def _sweep_and_tell(options: argparse.Namespace, built: Machine) -> int:
    try:
        evidence = sweep(options, built)
    except KeyboardInterrupt:
        _say("interrupted: no machine runs any more, and the evidence is what it was")
        return 130
    sys.stdout.write("\n".join(_lines(evidence)) + "\n")
    Path(options.evidence).parent.mkdir(parents=True, exist_ok=True)
    Path(options.evidence).write_text(json.dumps(evidence, indent=2) + "\n", encoding="utf-8")
    uncaught = [name for name, one in evidence["controls"].items() if not one["caught"]]
    if uncaught:
        sys.stdout.write(f"not caught: {', '.join(uncaught)}\n")
    return 1 if evidence["bad"] or uncaught else 0


def main(argv: list[str]) -> int:
    """Carry out one command line."""
    options = _parser().parse_args(argv)
    if absent := missing():
        _say(f"boot-test: missing: {', '.join(absent)}")
        return 1
    # A polite request to stop leaves nothing behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    work = _once_more if options.again else _sweep_and_tell
    return _with_scratch(options, lambda built: work(options, built))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
