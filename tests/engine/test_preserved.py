"""What belongs to a file or tree besides its content: it is kept, or the item stays, or the report says what is lost."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import vaults
from tests.support.cases import disk_of, load_cases
from tests.support.disktree import Tree, capture, diff
from tests.support.running import run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

CASE = next(case for case in load_cases("eve") if case.name == "sample_device")


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    """Return the sample device with a real vault."""
    with disk_of(CASE, tmp_path, "fscrypt") as place:
        yield Path(place)


def _run(top: Path, *words: str) -> tuple[int, dict[str, Any]]:
    return run(*words, "-p", str(top), "--target", "latest")


def _unread(tree: Tree) -> Tree:
    """Return a tree without the times of reading, which a test changes itself."""
    return {path: {name: value for name, value in entry.items() if name != "atime"} for path, entry in tree.items()}


def _container(top: Path) -> Path:
    return next((top / "runx/pods/prepared").iterdir())


def _reasons(document: dict[str, Any], path: Path) -> list[str]:
    return [skip["reason"] for skip in document["skipped"] if skip["path"].endswith(path.name)]


@pytest.mark.parametrize("locked", [True, False], ids=["locked", "open"])
def test_encryption_inside_a_tree(top: Path, locked: bool) -> None:
    """A tree with a folder behind another key is not copied: its policy would be lost, and while locked its names."""
    inner = _container(top) / "rootfs/secret"
    inner.mkdir()
    key = bytes(reversed(range(64)))
    identifier = vaults.add_key(str(top), key)
    vaults.encrypt(str(inner), identifier)
    os.symlink("/away", inner / "link")
    (inner / "folder").mkdir()
    if locked:
        vaults.lock(str(top), identifier)
    before = capture(str(_container(top)))
    status, document = _run(top)
    assert (status, _reasons(document, _container(top))) == (0, ["UnexpectedContent"])
    assert diff(before, capture(str(_container(top)))) == ""


def test_names_elsewhere_are_told(top: Path) -> None:
    """A file that has a name outside of what is copied becomes two: the report says so beforehand."""
    inside = _container(top) / "rootfs/etc/hostname"
    os.link(inside, top / "elsewhere")
    warned = [text for text in _run(top, "plan")[1]["warnings"] if "names elsewhere" in text]
    assert len(warned) == 1
    assert "1 files" in warned[0]


def test_default_acl_of_the_vault(top: Path) -> None:
    """What is made in a folder with a default ACL gets what is declared, and copies what their sources have."""
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx,g::---", str(top), str(top / "vault")], check=True)
    before = capture(str(top))
    assert _run(top)[0] == 0
    found = subprocess.run(["getfacl", "-R", "-p", "-s", str(top / "vault/volumes")], capture_output=True, text=True, check=True)
    assert found.stdout == ""
    assert _run(top, "rollback")[0] == 0
    assert diff(_unread(before), _unread(capture(str(top)))) == ""


@pytest.mark.parametrize("what", ["xattr", "acl", "inner xattr"])
def test_duplicate_with_more_to_it(top: Path, what: str) -> None:
    """A duplicate is put away only when nothing that it has is lost with it."""
    _run(top)
    volumes = top / "vault/volumes"
    kept = {path.name: path for path in volumes.iterdir()}
    subprocess.run(["cp", "-a", str(volumes), str(top / "saved")], check=True)
    _run(top, "rollback")
    (top / "vault/volumes").mkdir(mode=0o700)
    for name in kept:
        subprocess.run(["cp", "-a", str(top / "saved" / name), str(volumes / name)], check=True)
    source = next(path for path in (top / "img").iterdir() if path.name.startswith("0ddcfa"))
    if what == "inner xattr":
        source = _container(top)
        os.setxattr(source / "rootfs/etc/hostname", "user.vital", b"data")
    elif what == "xattr":
        os.setxattr(source, "user.vital", b"data")
    else:
        subprocess.run(["setfacl", "-m", "u:77:rw", str(source)], check=True)
    before = capture(str(source))
    status, document = _run(top)
    assert (status, _reasons(document, source)) == (0, ["TargetExists"])
    assert diff(before, capture(str(source))) == ""


def test_duplicate_comes_back_without_what_was_added(top: Path) -> None:
    """A container whose copy is there already is put away; a rollback makes it anew without the file that was added."""
    _run(top)
    subprocess.run(["cp", "-a", str(top / "vault/volumes"), str(top / "saved")], check=True)
    _run(top, "rollback")
    subprocess.run(["cp", "-a", str(top / "saved"), str(top / "vault/volumes")], check=True)
    names = {path: set(entry) for path, entry in capture(str(_container(top))).items()}
    container = _container(top)
    assert _run(top)[0] == 0
    assert not container.exists()
    assert _run(top, "rollback")[0] == 0
    assert set(capture(str(container))) == set(names)
