"""Every fixture of every pack keeps the same promises, on a plain directory and behind a real vault."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cases import Case, disk_of, load_cases
from tests.support.disktree import capture, diff
from tests.support.running import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

CASES = [pytest.param(case, id=f"{pack}-{case.name}") for pack in ("eve",) for case in load_cases(pack)]
VAULTS = ("plain", "fscrypt")


def _skip_unfit(case: Case, vault: str) -> bool:
    """A case about a locked vault has nothing to say where no vault is encrypted."""
    return bool(case.options.get("lock_vault")) and vault == "plain"


def _outcome(document: dict[str, object]) -> str:
    skipped = document["skipped"]
    assert isinstance(skipped, list)
    left = "".join(f"# left {s['path']} {s['reason']}\n" for s in skipped)
    return f"# exit {document['exit_status']} {document['outcome']}\n{left}"


def _backwards(scandir: Callable[[int], Any]) -> Callable[[int], Any]:
    """Return a directory listing in the opposite order."""

    @contextlib.contextmanager
    def listing(fd: int) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(fd) as entries:
            yield list(entries)[::-1]

    return listing


@pytest.mark.parametrize("vault", VAULTS)
@pytest.mark.parametrize("case", CASES)
def test_fixture_keeps_every_promise(case: Case, vault: str, tmp_path: Path) -> None:
    """Dry run is pure, the result is exactly the expected one, twice is once, and rolling back gives what was."""
    if _skip_unfit(case, vault):
        return
    with disk_of(case, tmp_path, vault) as top:
        before = capture(top, engine=True)
        arguments = ("-p", top, "--target", case.target)

        _, planned = run("--dry-run", *arguments)
        assert capture(top, engine=True) == before, "a dry run changed something"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("upgradeconverter.disk.walking.os.scandir", _backwards(os.scandir))
            again = run("plan", *arguments)[1]
        assert planned["plan_digest"] == again["plan_digest"], "the plan depends on the order of directory entries"

        _, document = run(*arguments)
        after = capture(top)
        found = _outcome(document) + diff(before, after)
        expected = case.folder / f"expect.{vault}.diff"
        if not expected.exists():
            expected = case.folder / "expect.diff"
        if os.environ.get("UPDATE_GOLDEN") and not (expected.exists() and os.fsdecode(expected.read_bytes()) == found):
            place = case.folder / ("expect.diff" if vault == "plain" or not expected.exists() else f"expect.{vault}.diff")
            place.write_bytes(os.fsencode(found))
            expected = place
        assert found == os.fsdecode(expected.read_bytes())

        run(*arguments)
        assert capture(top) == after, "a second run changed something"

        run("rollback", "-p", top)
        assert diff(before, capture(top)) == "", "rolling back did not give what was"
