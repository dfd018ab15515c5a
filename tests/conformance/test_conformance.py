"""Every fixture of every pack keeps the same promises, with each kind of vault; together they show every reason."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cases import PACKS, Case, disk_of, load_cases
from tests.support.disktree import Tree, capture, diff, timeless
from tests.support.running import run
from upgradeconverter.model.outcome import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CASES = [(pack, case) for pack in PACKS for case in load_cases(pack)]

RUNS = [pytest.param(case, vault, id=f"{pack}-{case.name}-{vault}") for pack, case in CASES for vault in case.options["vaults"]]


def _outcome(document: dict[str, Any]) -> str:
    code = f" {document['error']['code']}" if document["error"] else ""
    left = "".join(f"# left {s['path']} {s['reason']}\n" for s in document["skipped"])
    return f"# exit {document['exit_status']} {document['outcome']}{code}\n{left}"


def _golden(case: Case, vault: str) -> Path:
    """Return where the expected result is: a vault has a file of its own only where it makes a difference."""
    own = case.folder / f"expect.{vault}.diff"
    return own if own.exists() else case.folder / "expect.diff"


def _update(case: Case, vault: str, found: str) -> None:
    place = _golden(case, vault)
    if place.exists() and os.fsdecode(place.read_bytes()) != found and vault != case.options["vaults"][0]:
        place = case.folder / f"expect.{vault}.diff"
    place.write_bytes(os.fsencode(found))


def _backwards(scandir: Callable[[int], Any]) -> Callable[[int], Any]:
    """Return a directory listing in the opposite order."""

    @contextlib.contextmanager
    def listing(fd: int) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(fd) as entries:
            yield list(entries)[::-1]

    return listing


def _look_only(top: str, before: Tree, arguments: tuple[str, ...]) -> None:
    """See that a dry run changes nothing, and says the same in whatever order the disk lists its entries."""
    _, planned = run("--dry-run", *arguments)
    assert capture(top, engine=True) == before, "a dry run changed something"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("upgradeconverter.disk.walking.os.scandir", _backwards(os.scandir))
        again = run("--dry-run", *arguments)[1]
    assert planned["plan_digest"] == again["plan_digest"], "the plan depends on the order of directory entries"


@pytest.mark.root
@pytest.mark.parametrize(("case", "vault"), RUNS)
def test_fixture_keeps_every_promise(case: Case, vault: str, tmp_path: Path) -> None:
    """Dry run is pure, the result is exactly the expected one, twice is once, and rolling back gives what was."""
    with disk_of(case, tmp_path, vault) as top:
        before = capture(top, engine=True)
        for arguments in case.starts(top):
            _look_only(top, before, arguments)

        started = time.time_ns()
        first = undone = after = case.at_rest(capture(top))
        found, statuses = "", []
        written = first
        for number, arguments in enumerate(case.starts(top)):
            if number == 1:
                case.meanwhile(top)
                written = case.at_rest(capture(top))
            status, document = run(*arguments)
            found += _outcome(document)
            statuses.append(status)
            # To confirm is no run of its own.
            undone = after if document["outcome"] == "done" and document["command"] != "confirm" else undone
            after = case.at_rest(capture(top))
        found += timeless(diff(first, after), started)
        if os.environ.get("UPDATE_GOLDEN"):
            _update(case, vault, found)
        assert found == os.fsdecode(_golden(case, vault).read_bytes())

        assert [run(*arguments)[0] for arguments in case.starts(top)] == statuses, "a second run ends otherwise"
        assert case.at_rest(capture(top)) == after, "a second run changed something"

        run(*case.asked(top, "rollback"))
        if case.options["meanwhile"]:
            undone = case.taken_back(first, written)
        assert diff(undone, case.at_rest(capture(top))) == "", "rolling back did not give what was"


def _reasons_shown() -> set[str]:
    """Return the last words of all lines of all expected results that say how a run ended or what it left alone."""
    told = (line for _, case in CASES for file in case.folder.glob("expect*.diff") for line in file.read_bytes().splitlines())
    return {os.fsdecode(line).split()[-1] for line in told if line.startswith((b"# exit ", b"# left "))}


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_fixture(reason: Reason) -> None:
    """No reason of the catalogue is without a disk on which it is the right one."""
    assert reason.value in _reasons_shown()


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{pack}-{case.name}") for pack, case in CASES])
def test_every_fixture_says_what_it_is_about(case: Case) -> None:
    """Each fixture has its description, under its own name."""
    assert (case.folder / "about.md").read_text(encoding="utf-8").startswith(f"# {case.name}\n\n")
