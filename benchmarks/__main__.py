"""The command line of the benchmarks: `make bench`, see README.md."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import idle, installed, moving, page, planning, plot, report
from .cases import MOVING
from .errors import BenchmarkError, MissingError, UnknownWordError
from .figures import Wanted
from .grounds import GROUNDS
from .ways import OURS, PROGRAM, WAYS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .figures import Result

    Job = Callable[..., Result]

EVIDENCE = Path(__file__).resolve().parents[1] / "docs/evidence/performance.json"
PAGE = EVIDENCE.parents[1] / "performance.md"
CASES = (idle.NAME, *(case.name for case in MOVING), planning.NAME)
USUAL = "vault,plain,btrfs"
_PROGRAMS = ("strace", "rsync", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "btrfs", "mount", "unshare")
EXIT_NOT_EQUAL, EXIT_NOT_MEASURED = 1, 2
# Not /tmp, which is memory on many machines.
_SCRATCH = "/var/tmp"  # noqa: S108 - a folder with a name of its own is made in it
_ALONE = "UPGRADECONVERTER_BENCH_ALONE"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("--case", default=",".join(CASES), help="cases, with commas between them; default all: %(default)s")
    made.add_argument("--on", default=USUAL, help=f"grounds, of {','.join(GROUNDS)}; default %(default)s")
    made.add_argument("--against", default=",".join(WAYS), help="ways to do it; default all: %(default)s")
    made.add_argument("--rounds", type=_number, help=f"default {idle.ROUNDS} for {idle.NAME}, {moving.ROUNDS} for the others")
    made.add_argument("--scale", type=_scale, default=1.0, help="sizes and numbers are multiplied by it; default 1")
    made.add_argument("--no-count", action="store_true", help="neither count system calls nor time the parts of our work")
    made.add_argument(
        "--write",
        action="store_true",
        help=f"write JSON and a plot, {EVIDENCE.name} in docs/evidence, and the tables of {PAGE.name}",
    )
    made.add_argument("--evidence", type=Path, default=EVIDENCE, help=argparse.SUPPRESS)
    return made


def _number(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one round")
    return number


def _scale(word: str) -> float:
    scale = float(word)
    if not 0 < scale <= 1:
        raise argparse.ArgumentTypeError("more than 0, at most 1")
    return scale


def chosen(words: str, known: Sequence[str], what: str) -> list[str]:
    """Return what a list with commas names, in our order; UnknownWordError for what there is not."""
    asked = [word.strip() for word in words.split(",") if word.strip()]
    for word in asked or [""]:
        if word not in known:
            raise UnknownWordError(what=what, word=word, known=list(known))
    return [each for each in known if each in asked]


def jobs(arguments: argparse.Namespace) -> list[Job]:
    """Return what measures each case on each ground; UnknownWordError for what there is not."""
    wanted = Wanted(scale=arguments.scale, rounds=arguments.rounds, count=not arguments.no_count)
    names = chosen(arguments.case, CASES, "case")
    on = [GROUNDS[name] for name in chosen(arguments.on, [*GROUNDS], "ground")]
    ways = [WAYS[name] for name in chosen(arguments.against, [*WAYS], "way")]
    found: list[Job] = [partial(idle.measure, wanted)] if idle.NAME in names else []
    for case in (each for each in MOVING if each.name in names):
        # Where nothing has to be copied, it does not matter how little room there is.
        suited = (each for each in on if case.free is None or each.vault == "fscrypt")
        found += [partial(moving.measure, case, ground, wanted, ways=ways) for ground in suited]
    return [*found, partial(planning.measure, on[0], wanted)] if planning.NAME in names else found


def run(todo: Sequence[Job], evidence: Path | None) -> int:
    """Measure, tell and write down; returns 1 where results were not equal, 2 where something could not be measured."""
    status = 0
    with tempfile.TemporaryDirectory(prefix="upgradeconverter-bench-", dir=os.environ.get("TMPDIR", _SCRATCH)) as scratch:
        for job in todo:
            try:
                result = job(scratch=Path(scratch))
            except BenchmarkError as problem:
                _say(problem)
                status = EXIT_NOT_MEASURED
                continue
            print("\n".join(report.table(result)), end="\n\n", flush=True)
            if evidence is not None:
                _write(evidence, result)
            if any(found.problem().startswith(moving.NOT_EQUAL) for found in result.found):
                status = status or EXIT_NOT_EQUAL
            elif any(found.problem() for found in result.found if found.name == OURS):
                status = EXIT_NOT_MEASURED
    return status


def _write(evidence: Path, result: Result) -> None:
    everything = report.merged(report.read(evidence), [report.document_of(result)])
    report.write(evidence, everything)
    evidence.with_suffix(".svg").write_text(plot.drawn(everything), encoding="utf-8")
    if evidence == EVIDENCE:
        PAGE.write_text(page.filled(PAGE.read_text(encoding="utf-8"), everything), encoding="utf-8")


def _say(problem: BenchmarkError) -> None:
    print(f"benchmarks: {problem}", file=sys.stderr)


def check_machine() -> None:
    """Refuse to begin without what every case needs."""
    if os.geteuid() != 0:
        raise MissingError("root, for loop devices and owners")
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    os.environ["PATH"] = path
    for program in _PROGRAMS:
        if shutil.which(program) is None:
            raise MissingError(f"the program {program}")


def alone(argv: Sequence[str]) -> None:
    """Go on in a mount namespace of our own: whatever ends it, mounts and loop devices go with the last process in it."""
    if _ALONE not in os.environ:
        words = ["unshare", "--mount", "--", sys.executable, "-m", "benchmarks", *argv]
        os.execvpe(words[0], words, os.environ | {_ALONE: "1"})  # noqa: S606 - no shell


def _stop(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(argv: Sequence[str]) -> int:
    """Run what the command line asks for; 2 where that cannot be."""
    asked = parser()
    arguments = asked.parse_args(argv)
    if arguments.write and arguments.scale != 1 and arguments.evidence == EVIDENCE:
        asked.error("what is found at another scale than 1 is no evidence; leave --write out")
    try:
        todo = jobs(arguments)
        if not todo:
            asked.error(f"{arguments.case} is not measured on {arguments.on}; see benchmarks/README.md")
        check_machine()
        alone(argv)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _stop)
        with tempfile.TemporaryDirectory(prefix="upgradeconverter-bench-") as place:
            os.environ[PROGRAM] = str(installed.whole(Path(place)) / "upgradeconverter")
            return run(todo, arguments.evidence if arguments.write else None)
    except BenchmarkError as problem:
        _say(problem)
        return EXIT_NOT_MEASURED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
