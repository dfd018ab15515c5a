"""Mounts inside the root: file systems and datasets of their own, as EVE has them on ZFS and as EVE-k has its vault."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from tests.support import vaults
from tests.support.cases import load_cases
from tests.support.disktree import Tree, build, capture, diff
from tests.support.olddisk import left, make_disk
from tests.support.running import run
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.errors import EXIT_DONE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upgradeconverter.model.entry import Space

pytestmark = pytest.mark.root

CASE = next(case for case in load_cases("eve") if case.name == "sample_device")
LATE = 1_700_000_000_000_000_000  # later than any time of a fixture
# What each mounts besides the root, parents first.
LAYOUTS = {
    "vault of its own (EVE-k)": ("vault",),
    "datasets of ZFS": ("vault", "vault/volumes", "clear", "clear/volumes"),
    "volumes alone": ("vault/volumes",),
    "old volumes": ("img", "downloads"),
    "old containers": ("runx", "vault"),
    "everything": ("img", "runx/pods", "downloads", "status", "vault", "vault/volumes", "vault/verifier", "clear"),
}


@pytest.fixture(params=list(LAYOUTS.values()), ids=list(LAYOUTS))
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Return the sample device, built over several mounted file systems."""
    top = tmp_path / "persist"
    with ExitStack() as stack:
        stack.enter_context(vaults.mounted(str(tmp_path / "image"), str(top), size="160M"))
        for number, path in enumerate(request.param):
            stack.enter_context(vaults.mounted(str(tmp_path / f"image{number}"), str(top / path)))
        build(CASE.tree, str(top))
        yield top, request.param


def _do(top: Path, *words: str) -> tuple[int, dict[str, Any]]:
    return run(*words, "-p", str(top), "--target", "latest")


def _files(tree: Tree) -> Tree:
    """Return what is no directory, without the times of what was just written."""
    files = {path: entry for path, entry in tree.items() if entry["kind"] != "directory"}
    return {path: entry if entry["mtime"] < LATE else _timeless(entry) for path, entry in files.items()}


def _timeless(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in ("mtime", "atime")}


def test_same_end_as_on_one_file_system(mounted: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    """Each piece lies where it lies on one file system; mount points stay; a second start and a rollback do as they do there."""
    top, points = mounted
    plain = tmp_path / "plain"
    plain.mkdir()
    build(CASE.tree, str(plain))
    before = capture(str(top))
    assert _do(plain)[0] == EXIT_DONE
    assert _do(top)[0] == EXIT_DONE
    assert diff(_files(capture(str(plain))), _files(capture(str(top)))) == ""
    assert all(os.path.ismount(top / point) for point in points)
    assert _do(top)[1]["outcome"] == "nothing-to-do"
    assert _do(top, "rollback")[0] == EXIT_DONE
    assert diff(before, capture(str(top))) == ""


def test_trial_over_datasets(mounted: tuple[Path, tuple[str, ...]]) -> None:
    """A trial is a copy where there is a boundary, and can be confirmed and taken back like any other."""
    top, _ = mounted
    before = capture(str(top))
    assert _do(top, "--trial")[0] == EXIT_DONE
    assert _files(before).items() <= {path: before.get(path, entry) for path, entry in capture(str(top)).items()}.items()
    assert _do(top, "confirm")[0] == EXIT_DONE
    assert not list((top / "img").glob("0ddcfa*"))
    assert _do(top, "rollback")[0] == EXIT_DONE
    assert diff(before, capture(str(top))) == ""


def test_dataset_inside_the_store(tmp_path: Path) -> None:
    """A store with a snapshotter's dataset in it is not taken apart: it stays, and the mount is named; all else is converted."""
    top = Path(make_disk(tmp_path / "persist"))
    inside = "containerd/io.containerd.snapshotter.v1.zfs"
    (top / inside).mkdir(parents=True)
    (top / "containerd/meta.db").write_bytes(b"snapshots")
    with vaults.mounted(str(tmp_path / "image"), str(top / inside)):
        document = _do(top)[1]
        assert left(document) == {"containerd": "InUse"}
        assert f"{inside} is a mount point" in document["skipped"][0]["detail"]
        assert (top / "containerd/meta.db").exists()
    assert _do(top)[1]["skipped"] == []
    assert (top / "vault/containerd/meta.db").exists()


def test_freed_room_comes_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the room of what was put away comes only later the rest waits for the next start, by name; nothing fills up."""
    top = tmp_path / "persist"
    space, taken = PosixDisk.space, 48 << 20
    with vaults.mounted(str(tmp_path / "image"), str(top), size="64M"):
        identifier = vaults.add_key(str(top))
        make_disk(top)
        vaults.encrypt(str(top / "vault"), identifier)
        image = next((top / "img").iterdir())
        image.write_bytes(os.urandom(12 << 20))
        monkeypatch.setattr("upgradeconverter.planning.fitting.WAVE_STEPS", 1)

        def late(disk: PosixDisk, path: str) -> Space:
            # As if nothing that was deleted were free again.
            found = space(disk, path)
            has_begun = (top / "vault/verifier").exists() or (top / "vault/volumes").exists()
            return replace(found, free=min(found.free, taken)) if not has_begun else replace(found, free=0)

        monkeypatch.setattr(PosixDisk, "space", late)
        document = _do(top)[1]
        assert document["exit_status"] == EXIT_DONE
        assert "NoSpace" in left(document).values()
        monkeypatch.setattr(PosixDisk, "space", space)
        assert left(_do(top)[1]) == {}
        assert any((top / "vault/volumes").glob("*.qcow2"))
