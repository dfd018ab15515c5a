"""The process is killed at calls that change something, some of each kind, on a real file system; the next start mends it.

A kill at a call that only reads leaves the same disk as a kill at the next one that changes something, so these are all states
that death of the process can leave. The counter of strace is per call name, and the kill lands before the call takes effect.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import disk_of, load_cases
from tests.support.disktree import Tree, capture, diff
from tests.support.running import run

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

CALLS = (
    "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,fdatasync,syncfs,write,pwrite64,chown,fchown,fchownat,"
    "chmod,fchmod,fchmodat,utimensat,setxattr,lsetxattr,removexattr,lremovexattr,linkat,symlinkat,mknodat,ftruncate"
)
CASES = (
    ("eve", "multi_drive_app", "plain"),
    ("eve", "multi_drive_app", "fscrypt"),
    # All that is taken over from elsewhere: nothing of the source may be lost either.
    ("rayos", "given_root_moved", "plain"),
)
SEED, DEATHS_AT_A_CALL = 20260, 8
LATE = 1_700_000_000_000_000_000  # later than any time of a fixture: the time of a run
REPOSITORY = Path(__file__).resolve().parents[2]


def _convert(words: tuple[str, ...], top: str, *strace: str) -> subprocess.CompletedProcess[str]:
    # A killed start leaves its lock file, and one that is there already takes fewer calls than one that has to be made.
    facts = os.stat(words[words.index("-p") + 1])
    Path(f"/run/upgradeconverter/{os.major(facts.st_dev)}-{os.minor(facts.st_dev)}-{facts.st_ino}.lock").unlink(missing_ok=True)
    arguments = [sys.executable, "-m", "upgradeconverter", *words]
    command = ["strace", "-qq", "-o", f"{top}.trace", "-e", f"trace={CALLS}", *strace, *arguments]
    # Measuring coverage writes files of its own, and a killed process leaves them damaged.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY, env=environment)


def _count(top: str) -> Counter[str]:
    with open(f"{top}.trace", encoding="utf-8", errors="replace") as lines:
        return Counter(match.group(1) for line in lines if (match := re.match(r"(\w+)\(", line)))


@pytest.mark.parametrize(("pack", "name", "vault"), CASES)
def test_killed_at_any_call_the_next_start_finishes(pack: str, name: str, vault: str, tmp_path: Path) -> None:
    """After a kill at any call one more start gives the fault-free result, and another one changes nothing."""
    case = next(case for case in load_cases(pack) if case.name == name)
    (tmp_path / "whole").mkdir()
    with disk_of(case, tmp_path / "whole", vault) as top:
        before = capture(top)
        assert _convert(case.starts(top)[0], top).returncode == 0
        after = capture(top)
        counts = _count(top)
    assert sum(counts.values()) > 50, f"only {counts} seen, strace does not show the conversion"
    killed = 0
    for call, times in sorted(counts.items()):
        for number in _some(call, times):
            folder = tmp_path / f"{call}-{number}"
            folder.mkdir()
            with disk_of(case, folder, vault) as top:
                words = case.starts(top)[0]
                done = _convert(words, top, "-e", f"inject={call}:signal=KILL:when={number}")
                assert done.returncode in (-9, 137), f"{call} {number}: not killed, {done.returncode} {done.stderr}"
                killed += 1
                status, document = run(*words)
                assert status == 0, f"{call} {number}: {document['error']}"
                found = _same_but_times(after, capture(top))
                assert found == "", f"{call} {number}: {found}"
                assert run(*words)[0] == 0
                assert not os.path.exists(f"{top}/vault/.upgradeconverter"), f"{call} {number}: leftovers"
                leftovers = {"stage", "trash", "manifest"} & set(os.listdir(f"{case.root(top)}/.upgradeconverter"))
                assert not leftovers, f"{call} {number}: {leftovers}"
    assert killed == sum(min(times, DEATHS_AT_A_CALL) for times in counts.values())
    assert before != after


def _some(call: str, times: int) -> list[int]:
    """Return at which of so many calls of one kind the program dies: at all of them, or at some that are drawn."""
    draw = random.Random(f"{SEED} {call}")  # noqa: S311 - a choice that can be repeated
    return sorted(draw.sample(range(1, times + 1), min(times, DEATHS_AT_A_CALL)))


def _is_new(entry: dict[str, Any]) -> bool:
    return entry["kind"] == "directory" or int(entry["mtime"]) >= LATE


def _same_but_times(expected: Tree, found: Tree) -> str:
    """Compare two results without times that say when the run was: those of directories and of files that it wrote itself."""

    def strip(tree: Tree) -> Tree:
        return {
            path: {name: value for name, value in entry.items() if name not in ("mtime", "atime") or not _is_new(entry)}
            for path, entry in tree.items()
        }

    return diff(strip(expected), strip(found))
