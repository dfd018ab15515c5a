"""Packs are found by path, in a fixed order, and refused when somebody untrusted could change them or when they are unsound."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from upgradeconverter.errors import PackDamagedError, UnknownPackError
from upgradeconverter.packs import find

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyfakefs.fake_filesystem import FakeFilesystem

ROOT = "/opt/packs"
FOLDER = f"{ROOT}/mine"
STRANGER = 4711

SOUND = """
from upgradeconverter.packs.api import Checkpoint, Layout, LayoutOrder, Pack, Phase

PACK = Pack(
    name="mine",
    summary="A pack that does nothing.",
    order=LayoutOrder(labels=("old", "new"), resolve=lambda word: "new" if word == "new" else None),
    layouts={"new": Layout(label="new", slots=())},
    phases=(Phase(name="only", needs_vault=False),),
    migrations=(),
    default_target="new",
    inputs=(),
    read_checkpoint=lambda documents, options: Checkpoint(content=None),
)
"""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.startswith("upgradeconverter_pack_mine")]:
        del sys.modules[name]


@pytest.fixture
def pack(fs: FakeFilesystem) -> FakeFilesystem:
    """Return a file system with a pack that root owns."""
    for path in (f"{FOLDER}/__init__.py", f"{FOLDER}/rules.py", f"{FOLDER}/__pycache__/rules.pyc"):
        fs.create_file(path)
    for path in (ROOT, FOLDER, f"{FOLDER}/__pycache__", *_files()):
        os.chown(path, 0, 0)
        os.chmod(path, 0o755 if os.path.isdir(path) else 0o644)
    return fs


def _files() -> tuple[str, ...]:
    return tuple(f"{FOLDER}/{name}" for name in ("__init__.py", "rules.py", "__pycache__/rules.pyc"))


def _pack(folder: Path, text: str) -> str:
    (folder / "mine").mkdir()
    (folder / "mine/__init__.py").write_text(text, encoding="utf-8")
    (folder / "mine").chmod(0o755)
    return str(folder)


def test_names_and_order(fs: FakeFilesystem) -> None:
    """Packs of all roots are known, each once; folders without a module and roots that are not there do not count."""
    for path in (f"{ROOT}/mine/__init__.py", f"{find.SYSTEM_ROOT}/mine/__init__.py", f"{find.SYSTEM_ROOT}/theirs/__init__.py"):
        fs.create_file(path)
    fs.create_dir(f"{ROOT}/none")
    fs.create_file(f"{ROOT}/file")
    assert find.names([ROOT, "/nowhere"]) == ("mine", "theirs")
    assert find.roots([ROOT])[:2] == (ROOT, find.SYSTEM_ROOT)


def test_trusted_pack_passes(pack: FakeFilesystem) -> None:
    """What root or we own and nobody else can write is trusted."""
    assert pack.exists(FOLDER)
    find._check_ownership("mine", FOLDER)
    os.chown(f"{FOLDER}/rules.py", os.geteuid(), os.getegid())
    os.chmod(f"{FOLDER}/rules.py", 0o664)
    find._check_ownership("mine", FOLDER)


@pytest.mark.parametrize("path", [ROOT, FOLDER, f"{FOLDER}/__pycache__", *_files()])
@pytest.mark.parametrize("how", ["owner", "others", "group"])
def test_untrusted_pack(pack: FakeFilesystem, path: str, how: str) -> None:
    """A stranger's, or one that strangers can write: the folder that holds the pack, the pack, or anything in it, is refused."""
    assert pack.exists(path)
    if how == "owner":
        os.chown(path, STRANGER, 0)
    elif how == "group":
        os.chown(path, 0, STRANGER)
        pack.chmod(path, 0o775)
    else:
        pack.chmod(path, 0o757)
    with pytest.raises(PackDamagedError, match=f"at {path}: "):
        find._check_ownership("mine", FOLDER)


@pytest.mark.parametrize("inner", ["rules.py", "", "dangling"])
def test_links_are_not_trusted(pack: FakeFilesystem, inner: str) -> None:
    """A link may lead to where a stranger can write, whoever owns the link."""
    path = f"{FOLDER}/{inner}".rstrip("/")
    if os.path.lexists(path):
        pack.remove_object(path)
    pack.create_symlink(path, "/home/stranger")
    if inner != "dangling":
        pack.create_dir("/home/stranger")
    with pytest.raises(PackDamagedError, match="found a link"):
        find._check_ownership("mine", FOLDER)


def test_load(tmp_path: Path) -> None:
    """A sound pack is loaded, from the first root that has it, once."""
    (tmp_path / "first").mkdir()
    root = _pack(tmp_path / "first", SOUND)
    assert find.load("mine", [root]).summary == "A pack that does nothing."
    assert find.load("mine", [root]) is find.load("mine", [root])


@pytest.mark.parametrize("name", ["none", "", "..", "../first", "mine/", "."])
def test_unknown_names(tmp_path: Path, name: str) -> None:
    """Only a name that is listed can be loaded: no path, no parent."""
    (tmp_path / "first").mkdir()
    with pytest.raises(UnknownPackError, match="eve, mine"):
        find.load(name, [_pack(tmp_path / "first", SOUND)])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("raise SystemError('no')", "SystemError", id="raises"),
        pytest.param("PACK = (", "SyntaxError", id="no Python"),
        pytest.param("import nothing_of_that_name", "ModuleNotFoundError", id="imports nothing"),
        pytest.param("", "expected PACK to be a Pack", id="no PACK"),
        pytest.param("PACK = 'pack'", "expected PACK to be a Pack", id="other PACK"),
        pytest.param(SOUND.replace('default_target="new"', 'default_target="newer"'), "newer is not a layout", id="unsound"),
    ],
)
def test_damaged_packs(tmp_path: Path, text: str, problem: str) -> None:
    """A pack that does not load, or is not sound, is refused with the first problem; a second look says the same."""
    root = _pack(tmp_path, text)
    for _ in range(2):
        with pytest.raises(PackDamagedError, match=problem):
            find.load("mine", [root])


def test_what_another_start_just_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte code that another start writes under a passing name is gone again when it is looked at; that is nothing wrong."""
    root = _pack(tmp_path, "")
    (tmp_path / "mine/passing.pyc").touch()
    listed = os.listdir

    def listing(path: str) -> list[str]:
        found = listed(path)
        (tmp_path / "mine/passing.pyc").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(os, "listdir", listing)
    find._check_ownership("mine", f"{root}/mine")
    assert not (tmp_path / "mine/passing.pyc").exists()
