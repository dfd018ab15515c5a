"""The history is a chain: what was altered, cut or left out of it is seen, and nothing stops it from going on."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

import upgradeconverter
from tests.support.dying import dying
from tests.support.olddisk import DIGEST, ENGINE, IMAGE, TARGETS, VERIFIED, checked, fake_vault, make_disk, stopping, unsynced
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.engine import ledger
from upgradeconverter.engine.ledger import add_run, last_noted, read_ledger
from upgradeconverter.journal.record import RecordKind

LEDGER = f"{ENGINE}/ledger"
EARLIER = f"{ENGINE}/ledger.previous"


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


def test_rotation(disk: PosixDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grew too large is put aside, two are kept, and the chain goes on from one to the other."""
    monkeypatch.setattr(ledger, "LIMIT", 400)
    for number in range(3, 30):
        add_run(disk, {"run": str(number)})
        runs = _runs(disk)
        assert (runs[-1], read_ledger(disk)[1]) == (str(number), ())
        assert runs == [str(each) for each in range(int(runs[0]), number + 1)]
    assert sorted(os.listdir(f"{disk.root_path}/{ENGINE}")) == ["ledger", "ledger.previous"]
    assert os.path.getsize(f"{disk.root_path}/{EARLIER}") < 600


def test_one_of_two_files_is_gone(disk: PosixDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the older file the beginning is missing, which is told; without the younger one it goes on from the older."""
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "LIMIT", 10)
        add_run(disk, {"run": "3"})
    older, younger = (Path(disk.root_path) / name for name in (EARLIER, LEDGER))
    kept = older.read_bytes()
    older.unlink()
    assert [problem.split(":")[0] for problem in read_ledger(disk)[1]] == [f"{LEDGER} line 1"]
    older.write_bytes(kept)
    # The power failed between putting the file aside and beginning the next one.
    younger.unlink()
    assert (last_noted(disk) or {})["run"] == "2"
    add_run(disk, {"run": "4"})
    assert (_runs(disk), read_ledger(disk)[1]) == (["0", "1", "2", "4"], ())


def test_power_cut_while_rotating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it stops, no run that was noted before is lost, but for those that were to go, and the next one is chained."""
    monkeypatch.setattr(ledger, "LIMIT", 10)
    for at in range(6):
        (tmp_path / str(at) / ENGINE).mkdir(parents=True)
        opened = PosixDisk.at(str(tmp_path / str(at)))
        for number in range(2):
            add_run(opened, {"run": str(number)})
        with dying(at):
            add_run(opened, {"run": "2"})
        assert "1" in _runs(opened), at
        add_run(opened, {"run": "3"})
        assert (_runs(opened)[-1], read_ledger(opened)[1]) == ("3", ()), at


@pytest.mark.parametrize("size", [1, 1 << 14, 1 << 18])
def test_only_the_end_is_read(disk: PosixDisk, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To add a run takes reading the line before it, however long that is, and no more than a bounded piece beside it."""
    for number in range(20):
        add_run(disk, {"run": str(number), "items": ["x" * (1 << 14)]})
    add_run(disk, {"run": "last", "items": ["x" * size]})
    read = []
    tail = PosixDisk.tail

    def counting(disk: PosixDisk, path: str, count: int) -> bytes:
        content = tail(disk, path, count)
        read.append(len(content))
        return content

    monkeypatch.setattr(PosixDisk, "tail", counting)
    with monkeypatch.context() as patch:
        patch.setattr(PosixDisk, "read", _refusing)
        add_run(disk, {"run": "next"})
        assert (last_noted(disk) or {})["run"] == "next"
    assert max(read) <= max(1 << 14, size * 9)
    assert read_ledger(disk)[1] == ()


def _refusing(*_: Any) -> bytes:
    raise OSError(errno.EIO, os.strerror(errno.EIO), LEDGER)


def test_nothing_to_do_reads_no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that finds nothing to do looks at none of it, the full program neither."""
    with unsynced():
        arguments = ("-p", make_disk(tmp_path / "persist"), "--target", "latest")
        checked(*arguments)
        before = (tmp_path / "persist" / LEDGER).read_bytes()
        read = PosixDisk.read

        def guarded(disk: PosixDisk, path: str, limit: int) -> bytes:
            return _refusing() if path in (LEDGER, EARLIER) else read(disk, path, limit)

        monkeypatch.setattr(PosixDisk, "read", guarded)
        monkeypatch.setattr(PosixDisk, "tail", _refusing)
        status, document = checked(*arguments)
        assert (status, document["outcome"], document["warnings"]) == (0, "nothing-to-do", [])
        assert (tmp_path / "persist" / LEDGER).read_bytes() == before


def _items(top: str) -> dict[str, dict[str, Any]]:
    disk = PosixDisk.at(top)
    try:
        return {item["target"]: item for run in read_ledger(disk)[0] for item in run["items"] if item["operation"] == "Move"}
    finally:
        disk.close()


def test_what_is_noted_of_a_run(tmp_path: Path) -> None:
    """Of each run who did it, when, how long it took, and what came of it; of each item where, how, and as what."""
    with unsynced(), fake_vault():
        top = make_disk(tmp_path / "persist")
        document = checked("-p", top, "--target", "latest")[1]
        shown = checked("history", "-p", top)[1]["details"]["runs"]
        items = _items(top)
    assert [(run["run"], run["plan_digest"], run["outcome"]) for run in shown] == [
        (document["run"], document["plan_digest"], "done")
    ]
    assert shown[0]["engine"] == upgradeconverter.__version__
    assert shown[0]["begun"] <= shown[0]["time"]
    assert 0 < shown[0]["seconds"] < 300
    assert [(item["source"], item["target"], item["status"]) for item in shown[0]["items"]] == [
        (item["source"], item["target"], item["status"]) for item in document["items"]
    ]
    volume, container, verified = (items[target] for target in TARGETS)
    assert [item["transfer"] for item in (volume, container, verified)] == ["copy", "copy", "copy"]
    assert [item["digest"].split(":")[0] for item in (volume, container, verified)] == ["manifest", "manifest", "sha256"]
    assert verified["digest"] == f"sha256:{DIGEST}"
    facts = (Path(top) / TARGETS[0]).stat()
    assert volume["left"]["size"] == facts.st_size == volume["size"]
    assert (volume["left"]["mtime_ns"], volume["left"]["owner"]) == (facts.st_mtime_ns, [facts.st_uid, facts.st_gid])
    assert volume["source"] == IMAGE


def test_renamed_things_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was only renamed the noted digest is over no content, if there is one at all; nothing is read for it."""
    with unsynced():
        top = make_disk(tmp_path / "persist")
        os.link(f"{top}/{IMAGE}", f"{top}/other name")
        monkeypatch.setattr(PosixDisk, "manifest", _refusing)
        assert checked("-p", top, "--target", "latest")[0] == 0
        items = _items(top)
    kinds = [(items[target]["transfer"], (items[target]["digest"] or "none").split(":")[0]) for target in TARGETS]
    assert kinds == [("rename", "fingerprint"), ("rename", "none"), ("rename", "sha256")]
    assert hashlib.sha256(VERIFIED).hexdigest() == DIGEST


def test_trial_notes_second_names(tmp_path: Path) -> None:
    """On trial a file has two names, which is called a link; once it is confirmed the item is done."""
    with unsynced():
        top = make_disk(tmp_path / "persist")
        checked("-p", top, "--target", "latest", "--trial")
        waiting = _items(top)[TARGETS[0]]
        checked("confirm", "-p", top)
        done = _items(top)[TARGETS[0]]
    assert (waiting["transfer"], waiting["status"]) == ("link", "waiting")
    assert (done["transfer"], done["status"]) == ("link", "done")


@pytest.mark.parametrize("kind", [RecordKind.STAGED, RecordKind.COMMITTED, RecordKind.DONE])
@pytest.mark.parametrize("when", ["before", "after"])
def test_start_that_died_is_noted_by_the_next(tmp_path: Path, kind: RecordKind, when: str) -> None:
    """What a start did that could note nothing any more stands in the history once the next one is through, each item once."""
    with unsynced(), fake_vault():
        top = make_disk(tmp_path / "persist")
        with stopping((kind, when)):
            checked("-p", top, "--target", "latest")
        assert not (Path(top) / LEDGER).exists()
        checked("-p", top, "--target", "latest")
        items = [item for run in checked("history", "-p", top)[1]["details"]["runs"] for item in run["items"]]
        again = (Path(top) / LEDGER).read_bytes()
        checked("-p", top, "--target", "latest")
        assert (Path(top) / LEDGER).read_bytes() == again
    done = [item for item in items if item["status"] == "done" and item["operation"] == "Move"]
    assert [(item["target"], item["digest"].split(":")[0]) for item in done] == [
        (TARGETS[0], "manifest"),
        (TARGETS[1], "manifest"),
        (TARGETS[2], "sha256"),
    ]


def test_taking_back_two_runs_notes_each_once(tmp_path: Path) -> None:
    """The journal of an earlier run becomes the present one again; what it did is not noted a second time."""
    with unsynced():
        top = make_disk(tmp_path / "persist")
        checked("-p", top, "--target", "design")
        checked("-p", top, "--target", "latest")
        checked("rollback", "-p", top)
        checked("rollback", "-p", top)
        runs = checked("history", "-p", top)[1]["details"]["runs"]
    moves = [[item["source"] for item in run["items"] if item["operation"] == "Move"] for run in runs]
    assert [run["command"] for run in runs] == ["run", "run", "rollback", "rollback"]
    assert [IMAGE in sources for sources in moves] == [True, False, False, False]
    assert [item["target"] for item in runs[-1]["items"] if item["operation"] == "Move"].count(IMAGE) == 1


HOSTILE = [
    {"items": 7, "skipped": 1},
    {"items": [7, None, {"source": "../../etc/passwd", "target": "/etc/shadow", "status": "done"}]},
    {"items": [{"source": ["x"], "target": {}, "status": "done"}], "journals": [["a", "b"], 3, [1, 2]]},
    {"items": [{"source": None, "target": "img", "status": "done", "left": {"mode": "x", "owner": 3}, "digest": 5}]},
    {"items": [{"target": "img", "status": "done", "left": {"kind": [], "owner": [1], "mode": None}}], "journals": "x"},
    {"journals": [["x", 1 << 80]], "seconds": [], "time": {}, "run": 3, "outcome": None},
]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_lines_that_nobody_of_ours_wrote(tmp_path: Path, line: dict[str, Any]) -> None:
    """Whatever stands in the file, every command has its answer, and a run that follows is noted."""
    with unsynced():
        top = make_disk(tmp_path / "persist")
        (tmp_path / "persist" / ENGINE).mkdir(mode=0o700)
        (tmp_path / "persist" / LEDGER).write_bytes(json.dumps(line).encode() + b"\n")
        for words in (("history",), ("status",), ("verify",), ("verify", "--deep"), (), ("verify", "--deep"), ("rollback",)):
            checked(*words, "-p", top, "--target", "latest")
        assert [run.get("command") for run in checked("history", "-p", top)[1]["details"]["runs"]] == [None, "run", "rollback"]
