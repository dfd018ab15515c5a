"""What state takes is what du(1) counts, and each byte of it is somebody's."""

from __future__ import annotations

import hashlib
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cases import load_cases
from tests.support.disktree import build
from tests.support.olddisk import IMAGE, TARGETS, append, checked, make_disk, unsynced, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What a newer system has converted nobody here can tell apart.
CASES = {case.name: case for case in load_cases("eve") if case.name != "stamp_newer"}
CONVERTED = ("sample_device", "containerd_rich", "kitchen_sink", "vm_raw_sparse", "metadata_odd")


@pytest.fixture(autouse=True)
def _unsynced() -> Iterator[None]:
    with unsynced():
        yield


def _usage(top: Path) -> dict[str, Any]:
    status, document = checked("usage", "-p", str(top), "--target", "latest")
    assert (status, document["items"], document["skipped"]) == (0, [], [])
    found: dict[str, Any] = document["details"]
    return found


def _du(top: Path, *words: str) -> int:
    done = subprocess.run(["du", "-s", "-B1", *words, str(top)], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0])


@pytest.mark.root
def _same_as_du(top: Path) -> None:
    found = _usage(top)
    assert found["in all"]["size"] == _du(top, "--apparent-size")
    assert found["in all"]["allocated"] == _du(top)
    for name_of_sum, total in found["in all"].items():
        assert sum(row[name_of_sum] for row in found["usage"]) == total


@pytest.mark.root
@pytest.mark.parametrize("name", CASES)
def test_as_du_counts(tmp_path: Path, name: str) -> None:
    """With holes, links and devices, on every fixture, the sums are those of du."""
    top = tmp_path / "persist"
    top.mkdir()
    build(CASES[name].tree, str(top))
    _same_as_du(top)


@pytest.mark.root
@pytest.mark.parametrize("name", CONVERTED)
def test_as_du_counts_afterwards(tmp_path: Path, name: str) -> None:
    """After a conversion as well, with what the program keeps of its own."""
    top = tmp_path / "persist"
    top.mkdir()
    build(CASES[name].tree, str(top))
    checked("run", "-p", str(top), "--target", "latest")
    _same_as_du(top)


def test_whose_it_is(tmp_path: Path) -> None:
    """Each place has its agent and its state; what nobody knows is told as that."""
    make_disk(tmp_path / "persist")
    top = tmp_path / "persist"
    (top / "strange").mkdir()
    append(top / "strange/file", b"1234")
    (top / "img/not a volume").write_bytes(b"12")
    rows = {(row["place"], row["state"]): row for row in _usage(top)["usage"]}
    assert (rows["img", "legacy"]["agent"], rows["img", "legacy"]["files"]) == ("volumemgr", 1)
    assert (rows["img", "unknown"]["agent"], rows["img", "unknown"]["size"]) == ("volumemgr", 2)
    assert (rows["strange", "unknown"]["agent"], rows["strange", "unknown"]["files"]) == ("nobody known", 1)
    assert rows["checkpoint", "other"]["agent"] == "zedagent"
    checked("-p", str(top), "--target", "latest")
    rows = {(row["place"], row["state"]): row for row in _usage(top)["usage"]}
    assert rows["vault/volumes", "current"]["size"] >= len(b"image of a virtual machine")
    assert not (top / IMAGE).exists()
    assert (top / TARGETS[0]).exists()


def test_what_can_be_reclaimed(tmp_path: Path) -> None:
    """What no release reads, and what was set aside, only takes room."""
    make_disk(tmp_path / "persist")
    top = tmp_path / "persist"
    write(top / "downloads/appImg.obj/verified" / hashlib.sha256(b"of no known kind").hexdigest() / "blob", b"of no known kind")
    rows = {row["place"]: row for row in _usage(top)["usage"]}
    assert rows["downloads/appImg.obj/verified"]["reclaimable"] > 0
    assert rows["img"]["reclaimable"] == 0
