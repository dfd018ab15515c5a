"""Cuts the power of recorded disks many times and says what that did: `make powercut`.

    python -m tests.powercut.sweep [--states N] [--seed N] [--jobs N] [--evidence FILE] [--keep FOLDER]
    python -m tests.powercut.sweep --again FOLDER

Needs root, loop devices, `/dev/fuse` and the makers of ext4, xfs and btrfs. The exit status is 1 when a state was bad, or when a
known mistake was not caught. Each bad state is kept in a folder with which `--again` makes it again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tests.powercut.blockdev import die_with, own_mounts
from tests.powercut.examine import Bench, Finding
from tests.powercut.stories import CONTROLS, PLACES, REPOSITORY, stories
from upgradeconverter.disk import lock

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Event

    from tests.powercut.stories import Place, Story

FIXTURES = ("eve/multi_drive_app", "eve/sample_device", "rayos/no_compat")
MOST_OF_ONE_RECORD = 600
LEAST_OF_ONE_RECORD = 30
NEEDED = ("mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "btrfs", "fallocate", "mv", "cp", "sync")
BATCH = 20
_PREFIX = "powercut"


def missing() -> list[str]:
    """Return what is not there without which no power can be cut."""
    found = [name for name in NEEDED if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None]
    found += [path for path in ("/dev/fuse", "/dev/loop-control") if not os.path.exists(path)]
    return found + ([] if os.geteuid() == 0 else ["root"])


@dataclass(slots=True)
class Tally:
    """What all findings together say."""

    states: set[str] = field(default_factory=set)
    deep: int = 0
    bad: int = 0
    by: dict[str, Counter[str]] = field(default_factory=dict)
    bad_by: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Count a finding, unless its state was counted before."""
        if finding.state in self.states:
            return
        self.states.add(finding.state)
        self.deep += finding.depth > 1
        self.bad += bool(finding.problems)
        for name, word in (
            ("by_file_system", finding.place),
            ("by_story", finding.story),
            ("by_record", finding.record),
            ("by_form", finding.form),
            *(("by_problem", word) for word in {text.split(":")[0] for text in finding.problems}),
        ):
            self.by.setdefault(name, Counter())[word] += 1
            self.bad_by.setdefault(name, Counter())[word] += bool(finding.problems)

    def table(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return states and bad states by each view."""
        return {
            name: {word: {"states": count, "bad": self.bad_by[name][word]} for word, count in sorted(counts.items())}
            for name, counts in self.by.items()
        }


def tour_of() -> list[tuple[Place, Story]]:
    """Return every story on every place; the first few of them have every place and every story already."""
    told = [stories(fixture) for fixture in FIXTURES]
    turns = [(fixture, shift) for shift in range(len(told[0])) for fixture in told]
    return [
        (place, fixture[(number + shift) % len(fixture)])
        for fixture, shift in turns
        for number, place in enumerate(PLACES.values())
    ]


def _work(job: int, options: argparse.Namespace, found: Queue[Any], enough: Event) -> None:
    """Cut the power again and again, as one of several processes, until there are enough states."""
    try:
        bench = _bench(f"{options.scratch}/job-{job}", f"{options.seed}/{job}", options.keep)
        tour = tour_of()
        quota = min(MOST_OF_ONE_RECORD, max(LEAST_OF_ONE_RECORD, options.states // (len(PLACES) * 5)))
        at = job * len(tour) // options.jobs
        while not enough.is_set():
            place, story = tour[at % len(tour)]
            at += 1
            bench.random = Random(f"{options.seed}/{job}/{at}")  # noqa: S311 - choices that can be repeated
            batch: list[Finding] = []
            for finding in bench.sweep(bench.scene(place, story), quota):
                batch.append(finding)
                if len(batch) >= BATCH:
                    found.put(batch)
                    batch = []
                if enough.is_set():
                    break
            found.put(batch)
    except BaseException:  # noqa: BLE001 - told to the one who counts
        found.put(traceback.format_exc())
    found.put(None)


def _control(options: argparse.Namespace, found: Queue[Any]) -> None:
    """Try what is known to be wrong; up to three times, since what a kernel does meanwhile is not always the same."""
    try:
        bench = _bench(f"{options.scratch}/controls", f"{options.seed}/controls", "")
        for name in CONTROLS:
            states = bad = 0
            for _ in range(3):
                more, wrong = bench.control(name)
                states, bad = states + more, bad + wrong
                if bad:
                    break
            found.put({name: {"states": states, "bad": bad, "caught": bad > 0}})
    except BaseException:  # noqa: BLE001 - told to the one who counts
        found.put(traceback.format_exc())
    found.put(None)


def _bench(folder: str, seed: str, keep: str) -> Bench:
    own_mounts()
    die_with(signal.SIGKILL)
    # Whoever interrupts means all of this; the one who counts ends the others, and what they mounted goes with them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.makedirs(folder)
    lock._FOLDER = folder
    return Bench(folder, Random(seed), keep)  # noqa: S311 - choices that can be repeated


def _clean_up_after_the_dead(shelf: str) -> None:
    """Remove the working folders of sweeps that were killed so hard that they could not."""
    for name in os.listdir(shelf):
        words = name.split("-")
        if words[0] == _PREFIX and len(words) > 2 and words[1].isdecimal() and not os.path.exists(f"/proc/{words[1]}"):
            shutil.rmtree(f"{shelf}/{name}", ignore_errors=True)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@dataclass(slots=True)
class Count:
    """What the processes have told so far."""

    options: argparse.Namespace
    enough: Event
    left: int
    tally: Tally = field(default_factory=Tally)
    controls: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    said: float = 0.0

    def take(self, message: Any) -> None:
        """Take one message: findings, a control, the end of a process, or what went wrong in it."""
        if isinstance(message, str):
            raise JobFailedError(message)
        if message is None:
            self.left -= 1
        elif isinstance(message, dict):
            self.controls |= message
            _say(f"control: {message}")
        else:
            for finding in message:
                self._add(finding)
        if len(self.tally.states) >= self.options.states and not self.enough.is_set():
            self.enough.set()
            self.ended = time.monotonic()

    def _add(self, finding: Finding) -> None:
        self.tally.add(finding)
        if finding.problems:
            problem = finding.problems[0].split("\n")[0]
            _say(f"bad: {finding.name} {finding.place}, {finding.story}, {finding.record}: {problem[:160]}")

    def report(self) -> None:
        """Tell how far it is, now and then."""
        now = time.monotonic()
        if now - self.said > self.options.every:
            self.said = now
            seen = len(self.tally.states)
            rate = seen / (now - self.began)
            left = max(0, self.options.states - seen) / rate / 60 if rate else 0
            _say(f"{seen} of {self.options.states} states, {self.tally.bad} bad, {rate:.1f}/s, {left:.0f} min left")

    @property
    def seconds(self) -> int:
        """How long it took until there were enough states."""
        return round((self.ended or time.monotonic()) - self.began)


class JobFailedError(Exception):
    """One of the processes failed; the message is its traceback."""


def sweep(options: argparse.Namespace) -> dict[str, Any]:
    """Let the jobs work and put together what they found."""
    context = multiprocessing.get_context("fork")
    found: Queue[Any] = context.Queue()
    enough = context.Event()
    jobs = [context.Process(target=_control, args=(options, found))]
    if not options.only_controls:
        jobs += [context.Process(target=_work, args=(job, options, found, enough)) for job in range(options.jobs)]
    count = Count(options, enough, len(jobs))
    for process in jobs:
        process.start()
    try:
        while count.left:
            try:
                count.take(found.get(timeout=1))
            except queue.Empty:
                if not any(process.is_alive() for process in jobs):
                    raise JobFailedError("a job died without a word") from None
            count.report()
    finally:
        for process in jobs:
            if count.left:
                process.kill()
            process.join()
    return {
        "distinct_states": len(count.tally.states),
        "bad": count.tally.bad,
        **count.tally.table(),
        "depth_2_states": count.tally.deep,
        "controls": count.controls,
        "seconds": count.seconds,
        "jobs": options.jobs,
        "seed": options.seed,
        "kernel": platform.release(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def commit() -> str:
    """Return the commit of the tree that is at work, with a word behind it when it was changed since."""
    words = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout.strip() or "unknown"


def _show(evidence: dict[str, Any]) -> None:
    lines = [f"{'':<52} {'states':>8} {'bad':>6}"]
    lines.append(f"{'distinct states':<52} {evidence['distinct_states']:>8} {evidence['bad']:>6}")
    for name in ("by_file_system", "by_story", "by_record", "by_form", "by_problem"):
        lines.append(name.replace("_", " "))
        lines += [f"  {word:<50} {one['states']:>8} {one['bad']:>6}" for word, one in evidence.get(name, {}).items()]
    lines.append(f"{'of these, cut again while recovering':<52} {evidence['depth_2_states']:>8}")
    lines.append("controls, which must be bad")
    lines += [f"  {word:<50} {one['states']:>8} {one['bad']:>6}" for word, one in evidence["controls"].items()]
    sys.stdout.write("\n".join(lines) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.powercut.sweep", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--states", type=int, default=100_000, help="how many different states")
    parser.add_argument(
        "--seed", type=int, default=1, help="of all choices; what the kernel writes when is not in anybody's hand"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    parser.add_argument("--every", type=int, default=5, help="seconds between two lines of progress")
    parser.add_argument("--evidence", default=str(REPOSITORY / "docs/evidence/powercut.json"), help="where the result goes")
    parser.add_argument("--keep", default=str(REPOSITORY / "build/powercut"), help="where bad states go")
    parser.add_argument("--only-controls", action="store_true", help="only what must be caught")
    parser.add_argument("--again", metavar="FOLDER", help="examine one kept state again")
    return parser


def main(argv: list[str]) -> int:
    """Carry out one command line."""
    options = _parser().parse_args(argv)
    if absent := missing():
        _say(f"powercut: missing: {', '.join(absent)}")
        return 1
    # A polite request to stop leaves nothing behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    shelf = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
    _clean_up_after_the_dead(shelf)
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}-{os.getpid()}-", dir=shelf) as scratch:
        options.scratch = scratch
        if options.again:
            record, problems = _bench(f"{scratch}/again", "again", "").again(options.again)
            sys.stdout.write("\n".join((f"last record: {record}", *problems, f"{len(problems)} problems")) + "\n")
            return 1 if problems else 0
        try:
            evidence = sweep(options)
        except KeyboardInterrupt:
            _say("interrupted: nothing is mounted any more, and the evidence is what it was")
            return 130
    _show(evidence)
    Path(options.evidence).parent.mkdir(parents=True, exist_ok=True)
    Path(options.evidence).write_text(json.dumps(evidence, indent=2) + "\n", encoding="utf-8")
    if evidence["bad"]:
        sys.stdout.write(
            f"bad states: {sys.executable} -m tests.powercut.sweep --again FOLDER, for each folder in {options.keep}\n"
        )
    uncaught = [name for name in CONTROLS if not evidence["controls"].get(name, {}).get("caught")]
    if uncaught:
        sys.stdout.write(f"not caught: {', '.join(uncaught)}\n")
    return 1 if evidence["bad"] or uncaught else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
