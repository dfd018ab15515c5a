"""Agents with ids of their own: one writes to a directory, those that have to look into it can, and nobody else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cases import disk_of, load_cases
from tests.support.disktree import capture, diff
from tests.support.running import run
from upgradeconverter.errors import EXIT_DONE
from upgradeconverter.model.layout import Access, Slot, Zone, access

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

CASES = {case.name: case for case in load_cases("eve")}
DOWNLOADER, VERIFIER, VOLUMEMGR, DOMAINMGR, STRANGER = 4001, 4002, 4003, 4004, 4005
SETTINGS = "".join(
    f"[agents.{name}]\nuid = {number}\ngid = {number}\n"
    for name, number in (("downloader", DOWNLOADER), ("verifier", VERIFIER), ("volumemgr", VOLUMEMGR), ("domainmgr", DOMAINMGR))
)


@pytest.fixture(params=["downloads_under_way", "sample_device"])
def device(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a converted disk on which agents have ids of their own."""
    tmp_path.chmod(0o711)
    for folder in tmp_path.parents[:3]:
        folder.chmod(0o711)
    (tmp_path / "settings.toml").write_text(SETTINGS)
    monkeypatch.setenv("UPGRADECONVERTER_CONFIG", str(tmp_path / "settings.toml"))
    with disk_of(CASES[request.param], tmp_path, "fscrypt") as place:
        top = Path(place)
        top.chmod(0o711)
        (top / "vault").chmod(0o711)
        before = capture(str(top))
        assert _do(top)[0] == EXIT_DONE
        yield top
        assert _do(top, "rollback")[0] == EXIT_DONE
        assert diff(before, capture(str(top))) == ""


def _do(top: Path, *words: str) -> tuple[int, dict[str, Any]]:
    return run(*words, "-p", str(top), "--target", "8.8.0")


def _can(number: int, test: str, path: Path) -> bool:
    """Return whether somebody with an id can read (`-r`), write to (`-w`) or search (`-x`) something."""
    words = ("setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups", "--", "test", test, str(path))
    return subprocess.run(words, check=False).returncode == 0


def _places(top: Path) -> list[tuple[Path, int, int]]:
    """Return what is shared: the path, who owns it, who reads it."""
    owners = {"vault/downloader": (DOWNLOADER, VOLUMEMGR), "vault/verifier": (VERIFIER, VOLUMEMGR)}
    owners |= {"vault/volumes": (VOLUMEMGR, DOMAINMGR), "clear/volumes": (VOLUMEMGR, DOMAINMGR)}
    found = [(top / place, *who) for place, who in owners.items() if (top / place).exists()]
    found += [(each, owner, reader) for place, owner, reader in found for each in place.iterdir()]
    verified = top / "vault/verifier/verified"
    return found + [(each, VERIFIER, VOLUMEMGR) for each in (verified.iterdir() if verified.exists() else ())]


def test_one_writes_and_some_read(device: Path) -> None:
    """What the kernel says: the reader gets in and reads, and writes nothing; a stranger does not even get in."""
    places = _places(device)
    assert len(places) >= 3
    for path, owner, reader in places:
        assert os.stat(path).st_uid == owner, path
        assert _can(reader, "-r", path), path
        assert not _can(reader, "-w", path), path
        assert not _can(STRANGER, "-r", path), path
        if path.is_dir():
            assert _can(reader, "-x", path), path
            assert _can(owner, "-w", path), path


def test_deviations_are_named(device: Path) -> None:
    """Verifying names each path that a reader cannot read, or that somebody else may write to."""
    assert _do(device, "verify")[1]["details"]["deviations"] == []
    path = next(path for path, *_ in _places(device) if path.is_dir())
    name = str(path.relative_to(device))
    mode = path.stat().st_mode & 0o777
    for changed, told in ((0o700, "not readable by"), (0o770, "writable by others than")):
        path.chmod(changed)
        assert [word for word in _do(device, "verify")[1]["details"]["deviations"] if name in word and told in word], told
    path.chmod(mode)


def test_what_waits_is_the_old_ones_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a trial the directory of an older release keeps the owner that it has there."""
    (tmp_path / "settings.toml").write_text("[agents.zedagent]\nuid = 4006\ngid = 4006\n")
    monkeypatch.setenv("UPGRADECONVERTER_CONFIG", str(tmp_path / "settings.toml"))
    with disk_of(CASES["config_moves"], tmp_path, "plain") as place:
        assert _do(Path(place), "--trial")[0] == EXIT_DONE
        assert _do(Path(place), "verify")[1]["details"]["deviations"] == []
        assert _do(Path(place), "confirm")[0] == EXIT_DONE
        assert os.stat(f"{place}/status/zedagent/ConfigItemValueMap").st_uid == 4006


def test_readers_in_several_groups() -> None:
    """A directory has one group: ids that would need more are refused; root, and the owner, need none."""
    slot = Slot(name="x", directory="x", owner="a", readers=("b", "c", "d"), mode=0o700, zone=Zone.PLAIN)
    assert access(slot, {}) == Access(uid=0, gid=0)
    assert access(slot, {"a": (1, 10), "b": (1, 20), "c": (0, 30)}) == Access(uid=1, gid=10)
    assert access(slot, {"a": (1, 10), "b": (2, 20), "c": (3, 20)}) == Access(uid=1, gid=20, is_shared=True)
    with pytest.raises(ValueError, match="b, c, d read x and need one group"):
        access(slot, {"a": (1, 10), "b": (2, 20), "d": (3, 30)})
