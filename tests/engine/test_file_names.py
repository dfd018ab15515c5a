"""Any name that a file can have, anywhere on an old disk: converted or left alone and reported, never lost, never a mistake."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.packs.eve_words import APP, SHA1
from tests.support.disktree import capture, diff
from tests.support.olddisk import (
    ENGINE,
    IMAGE,
    PREPARED,
    TARGETS,
    VERIFIED,
    VERIFIED_FOLDER,
    checked,
    contents,
    make_disk,
    set_times,
    unsynced,
    write,
)

ODD = (
    b"\n",
    b" ",
    b"-",
    b"--help",
    b"\xff\xfe",
    b"\x1b[2J",
    b"..x",
    b"x" * 255,
    b"\xc3\xa9" * 127,
    b"#",
    b"*",
    b"'\"\\",
    b"$(id)",
)
NEARLY = (os.path.basename(IMAGE).encode(), os.path.basename(PREPARED).encode(), os.path.basename(VERIFIED_FOLDER).encode())
ENGINES_OWN = (os.fsencode(ENGINE), b"journal", b"snapshotid.txt")


def _is_name(name: bytes) -> bool:
    return name not in (b"", b".", b"..") and len(name) <= 255


_PART = st.binary(max_size=8) | st.sampled_from([*ODD, *NEARLY])
NAMES = (
    st.binary(min_size=1, max_size=255)
    | st.sampled_from([*ODD, *NEARLY, *ENGINES_OWN])
    | st.tuples(_PART, st.sampled_from([*ODD, *NEARLY]), _PART).map(b"".join)
)
LEGAL = NAMES.map(lambda name: name.replace(b"/", b"").replace(b"\0", b"")[:255]).filter(_is_name)


def _put(top: Path, folder: str, name: bytes, content: bytes, *, inside: bytes | None = None) -> None:
    """Put a file of that name into a folder, or a folder of that name with one file in it; what is there already stays."""
    place = os.path.join(os.fsencode(top / folder), name)
    if os.path.lexists(place):
        return
    if inside is not None:
        place = os.path.join(place, inside)
    write(Path(os.fsdecode(place)), content)


def _odd_disk(top: Path, names: tuple[bytes, ...]) -> None:
    """Build the old disk with odd names in every slot and inside every tree."""
    make_disk(top)
    for number, name in enumerate(names):
        other = names[number - 1]
        _put(top, "img", name, b"image %d" % number)
        _put(top, "runx/pods/prepared", name, b"container %d" % number, inside=other)
        _put(top, f"{PREPARED}/rootfs", name, b"deep %d" % number, inside=other)
        _put(top, PREPARED, name, b"top %d" % number)
        _put(top, "downloads/appImg.obj/verified", name, b"verified %d" % number, inside=other)
        _put(top, "status/zedmanager/AppAndImageToHash", name, b"latch %d" % number)
        _put(top, "vault/volumes", name, b"new %d" % number)
    (top / VERIFIED_FOLDER / "name of the download").unlink()
    _put(top, VERIFIED_FOLDER, names[0], VERIFIED)
    set_times(top)


def _keeps_every_promise(names: tuple[bytes, ...]) -> None:
    with unsynced(), tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch) / "persist"
        _odd_disk(top, names)
        arguments = ("-p", str(top), "--target", "latest")
        before, inside = capture(str(top)), contents(str(top))

        untouched = capture(str(top), engine=True)
        checked("plan", *arguments)
        assert diff(untouched, capture(str(top), engine=True)) == ""
        status, document = checked(*arguments)
        assert status == 0, document["error"]
        assert not inside - contents(str(top))
        assert os.path.exists(top / TARGETS[2])

        after = capture(str(top))
        status, again = checked(*arguments)
        assert (status, again["outcome"], again["items"]) == (0, "nothing-to-do", [])
        assert again["skipped"] == document["skipped"]
        assert diff(after, capture(str(top))) == ""

        status, document = checked("rollback", "-p", str(top))
        assert status == 0, document["error"]
        assert diff(before, capture(str(top))) == ""


@pytest.mark.timeout(120)
@settings(deadline=None, max_examples=12)
@given(names=st.lists(LEGAL, min_size=1, max_size=3, unique=True).map(tuple))
@example(names=(b"\n", b"x\nskipped: 0", b"\xff"))
@example(names=(b"-rf", b"--", b"y" * 255))
@example(names=(os.fsencode(ENGINE), b"snapshotid.txt"))
@example(names=(NEARLY[0] + b"\n", NEARLY[1] + b"\n", NEARLY[2] + b"\n"))
@example(names=(f"{SHA1}-{APP}.raw".encode(), f"{SHA1.upper()}-{APP}.qcow2".encode()))
def test_any_name_anywhere(names: tuple[bytes, ...]) -> None:
    """Odd names in every slot: nothing is lost, twice is once, and rolling back gives what was."""
    _keeps_every_promise(names)
