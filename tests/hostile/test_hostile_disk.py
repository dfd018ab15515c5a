"""Small disks on which anything may lie anywhere: every command ends in its own words, and nothing outside changes."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.disktree import capture, diff
from tests.support.olddisk import (
    CONFIG,
    IMAGE,
    PREPARED,
    TARGETS,
    VERIFIED_FOLDER,
    checked,
    contents,
    make_disk,
    set_times,
    unsynced,
)

# Places on an old disk, in which things are put or which things replace.
FOLDERS = (
    "img",
    "runx/pods/prepared",
    PREPARED,
    f"{PREPARED}/rootfs",
    "downloads/appImg.obj/verified",
    VERIFIED_FOLDER,
    "vault",
    "vault/volumes",
    "status/zedmanager/AppAndImageToHash",
    "checkpoint",
)
NAMES = st.sampled_from(
    [
        *(os.path.basename(os.fsencode(path)) for path in (IMAGE, PREPARED, VERIFIED_FOLDER, *TARGETS)),
        b"lastconfig",
        b"lastconfig.bak",
        b"x.json",
        b"snapshotid.txt",
        b".upgradeconverter",
        b"rootfs",
        b"line\nbreak",
        b"\xff",
        b"n" * 255,
    ],
) | st.binary(min_size=1, max_size=20).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_")).filter(
    lambda name: name not in (b".", b"..")
)
CONTENTS = st.sampled_from([b"", CONFIG, CONFIG[:40], b"{}", b'{"AppUUID": 1}', b"[" * 5000, b"\0" * 5000]) | st.binary(
    max_size=40
)
KINDS = st.sampled_from(
    ["file", "folder", "link out", "link up", "link to itself", "fifo", "socket", "whiteout", "hard link", "deep"]
)
THINGS = st.lists(st.tuples(st.sampled_from(FOLDERS), NAMES, KINDS, CONTENTS), min_size=1, max_size=6)


def _place(top: Path, where: str, name: bytes, kind: str, content: bytes) -> None:
    """Put one thing somewhere; it replaces a file of that name, and stays away where a folder has it."""
    if any(os.path.lexists(top / above) and not _is_folder(top / above) for above in (*_above(where), where)):
        return
    folder = os.fsencode(top / where)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    if _is_folder(os.fsdecode(path)):
        return
    if os.path.lexists(path):
        os.unlink(path)
    _make(top, path, kind, content)


def _is_folder(path: Path | str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _make(top: Path, path: bytes, kind: str, content: bytes) -> None:
    name = os.path.basename(path)
    if kind == "file":
        Path(os.fsdecode(path)).write_bytes(content)
    elif kind == "folder":
        os.makedirs(path + b"/" + name)
    elif kind.startswith("link"):
        outside = os.fsencode(top.parent / "outside")
        os.symlink({"link out": outside, "link up": b"../../outside", "link to itself": name}[kind], path)
    elif kind == "hard link":
        os.link(top / IMAGE if (top / IMAGE).is_file() else top.parent / "spare", path, follow_symlinks=False)
    elif kind == "deep":
        os.makedirs(path + b"/d" * 300)
    else:
        kinds = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "whiteout": stat.S_IFCHR}
        os.mknod(path, kinds[kind] | 0o600, 0)


def _above(where: str) -> list[str]:
    parts = where.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]


def keeps_every_promise(things: list[tuple[str, bytes, str, bytes]]) -> None:
    """Build a disk with some things on it, and try every command."""
    with unsynced(), tempfile.TemporaryDirectory() as scratch:
        top, outside = Path(scratch) / "persist", Path(scratch) / "outside"
        make_disk(top)
        outside.mkdir()
        (outside / "precious").write_bytes(b"not ours")
        (top.parent / "spare").write_bytes(b"spare")
        for thing in things:
            _place(top, *thing)
        set_times(top)
        around = capture(str(outside), engine=True)
        before, inside = capture(str(top), engine=True), contents(str(top))
        apart_from_ours = capture(str(top))
        words = ("-p", str(top), "--target", "latest")
        checked("plan", *words)
        assert diff(before, capture(str(top), engine=True)) == ""
        status, document = checked(*words)
        assert status in (0, 3), document["error"]
        assert not inside - contents(str(top))
        if status == 3:
            assert diff(before, capture(str(top), engine=True)) == ""
        else:
            after = capture(str(top))
            assert checked(*words)[1]["items"] == []
            assert diff(after, capture(str(top))) == ""
            checked("verify", *words)
            assert checked("rollback", "-p", str(top))[0] == 0
            assert diff(apart_from_ours, capture(str(top))) == ""
        assert diff(around, capture(str(outside), engine=True)) == ""


@pytest.mark.timeout(600)
@settings(
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "25")),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(things=THINGS)
@example(things=[(PREPARED, b"fifo", "fifo", b""), ("img", os.path.basename(os.fsencode(IMAGE)), "fifo", b"")])
@example(things=[("checkpoint", b"lastconfig", "fifo", b""), ("checkpoint", b"lastconfig.bak", "socket", b"")])
@example(things=[("status/zedmanager/AppAndImageToHash", b"x.json", kind, b"") for kind in ("fifo", "link to itself", "deep")])
@example(things=[("runx/pods/prepared", name, "deep", b"") for name in (b"one", b"two")])
@example(things=[("vault", b"volumes", "link out", b"")])
@example(things=[("img", b".upgradeconverter", "file", b""), ("vault", b".upgradeconverter", "fifo", b"")])
@example(things=[(f"{PREPARED}/rootfs", b"x", kind, b"") for kind in ("hard link", "whiteout", "deep")])
def test_anything_anywhere(things: list[tuple[str, bytes, str, bytes]]) -> None:
    """Whatever lies anywhere, every command ends in its own words, twice is once, and rolling back gives what was."""
    keeps_every_promise(things)
