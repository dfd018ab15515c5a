"""The history is a chain: what was altered, cut or left out of it is seen, and nothing stops it from going on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.olddisk import ENGINE, checked, make_disk, unsynced
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.engine.ledger import add_run, read_ledger

LEDGER = f"{ENGINE}/ledger"


@pytest.fixture
def disk(tmp_path: Path) -> PosixDisk:
    """Return a disk with a history of three runs."""
    (tmp_path / ENGINE).mkdir()
    opened = PosixDisk.at(str(tmp_path))
    for number in range(3):
        add_run(opened, {"run": str(number)})
    return opened


def _runs(disk: PosixDisk) -> list[str]:
    return [run["run"] for run in read_ledger(disk)[0]]


def test_whole_chain(disk: PosixDisk) -> None:
    """What was added is read back in order, and nothing is wrong."""
    assert (_runs(disk), read_ledger(disk)[1]) == (["0", "1", "2"], ())


@pytest.mark.parametrize(
    ("change", "runs", "lines"),
    [
        pytest.param(lambda lines: [lines[0].replace(b'"0"', b'"9"'), *lines[1:]], ["9", "1", "2"], ["2"], id="altered"),
        pytest.param(lambda lines: [lines[0], lines[2]], ["0", "2"], ["2"], id="left out"),
        pytest.param(lambda lines: [lines[1], lines[0], lines[2]], ["1", "0", "2"], ["1", "2", "3"], id="turned round"),
        pytest.param(lambda lines: [lines[0], b"[" * 9999, lines[2]], ["0", "2"], ["2", "3"], id="no run"),
    ],
)
def test_damage_is_named(disk: PosixDisk, change: object, runs: list[str], lines: list[str]) -> None:
    """Each line that does not fit is named, and the others are still told."""
    place = Path(disk.root_path) / LEDGER
    assert callable(change)
    place.write_bytes(b"\n".join(change(place.read_bytes().splitlines())) + b"\n")
    found, problems = read_ledger(disk)
    assert ([run["run"] for run in found], [problem.split()[2].rstrip(":") for problem in problems]) == (runs, lines)


def test_torn_line_stays(disk: PosixDisk) -> None:
    """A line that a power cut left without its end is named, and the next run follows it."""
    place = Path(disk.root_path) / LEDGER
    place.write_bytes(place.read_bytes()[:-5])
    assert _runs(disk) == ["0", "1"]
    add_run(disk, {"run": "3"})
    runs, problems = read_ledger(disk)
    assert ([run["run"] for run in runs], len(problems)) == (["0", "1", "3"], 1)


def test_commands_tell(tmp_path: Path) -> None:
    """`history` warns and `verify` deviates when the history was altered."""
    with unsynced():
        root = make_disk(tmp_path / "persist")
        arguments = ("-p", root, "--target", "latest")
        checked(*arguments)
        place = Path(root) / LEDGER
        place.write_bytes(place.read_bytes().replace(b'"done"', b'"none"') + b"{}\n")
        assert [LEDGER in text for text in checked("history", *arguments)[1]["warnings"]] == [True]
        status, document = checked("verify", *arguments)
        assert (status, [LEDGER in text for text in document["details"]["deviations"]]) == (1, [True])
