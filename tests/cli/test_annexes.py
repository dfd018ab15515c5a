"""State that is taken from outside of the root: what may be named, that it stays until it is confirmed, and is found again."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.olddisk import checked, write
from upgradeconverter.cli.main import main
from upgradeconverter.errors import EXIT_DONE, EXIT_REFUSED, EXIT_USAGE

if TYPE_CHECKING:
    from pathlib import Path

REGISTRY = {"vm_id": "desk", "disk_path": "linux-guest/desktop/desktop-rootfs.ext4"}
DISK = "vm/linux/desk/disk.raw"


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """Return a development root beside an empty data root."""
    (tmp_path / "data").mkdir()
    write(tmp_path / "build/linux-guest/desktop/vm_registry.json", json.dumps(REGISTRY).encode())
    write(tmp_path / "build/linux-guest/desktop/desktop-rootfs.ext4", b"content of a disk")
    return tmp_path / "build"


def _rayos(build: Path, *words: str) -> tuple[int, dict[str, Any]]:
    status, document = checked(*words, "-p", str(build.parent / "data"), "--pack", "rayos")
    return status, document


def test_flags_of_the_pack(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a pack lets people say is a flag by its own name, and help lists it; other packs do not have it."""
    assert _rayos(build, "plan", "--source", str(build))[0] == EXIT_DONE
    assert _rayos(build, "plan", "--annex", f"source={build}", "--no-compat")[0] == EXIT_DONE
    assert checked("plan", "-p", str(build), "--source", str(build))[0] == EXIT_USAGE
    with pytest.raises(SystemExit):
        main(["--pack", "rayos", "--help"])
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--source DIR", "--windows-disk ID=PATH", "--image FILE", "--no-compat"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--source", "/nowhere"), "a directory"),
        (("--annex", "sauce=/tmp"), "source"),
        (("--annex", "source.x=/tmp"), "one path"),
        (("--windows-disk", "/tmp/disk"), "a name and a path"),
        (("--windows-disk", "a/b=/tmp/disk"), "ID=PATH"),
        (("--windows-disk", "win=/nowhere/disk"), "a regular file"),
        (("--annex", "source="), "a name and a path"),
    ],
)
def test_what_is_no_annex(build: Path, words: tuple[str, ...], told: str) -> None:
    """What cannot be an annex is refused by name before anything is looked at."""
    status, document = _rayos(build, *words)
    assert (status, document["error"]["code"]) == (EXIT_USAGE, "BadSetting")
    assert told in document["error"]["message"]
    assert os.listdir(build.parent / "data") == []


@pytest.mark.parametrize("place", [".", "..", "inside"])
def test_source_and_root_apart(build: Path, place: str) -> None:
    """A source that is the root, holds it or lies in it is refused: nobody could say what is whose."""
    (build.parent / "data/inside").mkdir()
    status, document = _rayos(build, "--source", str(build.parent / "data" / place))
    assert status == EXIT_USAGE
    assert "converted where it is" in document["error"]["message"]


def test_source_is_known_until_it_is_confirmed(build: Path) -> None:
    """What a start was told the next ones know: to confirm, to look what the old system did, and to go back."""
    assert _rayos(build, "--source", str(build))[0] == EXIT_DONE
    assert (build / REGISTRY["disk_path"]).exists()
    assert _rayos(build)[1]["outcome"] == "nothing-to-do"
    assert _rayos(build, "confirm")[1]["outcome"] == "done"
    assert not (build / REGISTRY["disk_path"]).exists()
    assert (build.parent / "data" / DISK).read_bytes() == b"content of a disk"
    # From now on nothing is to be done about the source.
    shutil.move(build, build.parent / "gone")
    assert _rayos(build)[1]["outcome"] == "nothing-to-do"
    assert _rayos(build, "rollback")[1]["error"]["code"] == "AnnexMissing"
    shutil.move(build.parent / "gone", build)
    assert _rayos(build, "rollback")[0] == EXIT_DONE
    assert (build / REGISTRY["disk_path"]).read_bytes() == b"content of a disk"
    assert not (build.parent / "data/vm").exists()


def test_source_is_gone_while_it_waits(build: Path) -> None:
    """To confirm without the source is refused, and nothing is concluded from its absence."""
    assert _rayos(build, "--source", str(build))[0] == EXIT_DONE
    shutil.move(build, build.parent / "gone")
    status, document = _rayos(build, "confirm")
    assert (status, document["error"]["code"]) == (EXIT_REFUSED, "AnnexMissing")
    assert (build.parent / "data" / DISK).read_bytes() == b"content of a disk"
    # It may be somewhere else by now.
    assert _rayos(build, "confirm", "--source", str(build.parent / "gone"))[0] == EXIT_DONE


def test_file_in_the_root(build: Path) -> None:
    """A file that is named and lies in the root is part of the disk already: it is moved, not copied."""
    root = build.parent / "data"
    write(root / "disks/win.qcow2", b"disk")
    write(root / "windows-guest/win/OVMF_VARS.fd", b"firmware")
    write(root / "windows-guest/win/tpm/tpm2-00.permall", b"tpm")
    assert _rayos(build, "--windows-disk", f"win={root}/disks/win.qcow2")[0] == EXIT_DONE
    assert (root / "vm/windows/win/disk.raw").read_bytes() == b"disk"
    assert not (root / "disks/win.qcow2").exists()


def test_settings_file(build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of settings can name annexes too."""
    write(tmp_path / "settings.toml", f'[annexes]\nsource = "{build}"\n'.encode())
    monkeypatch.setenv("UPGRADECONVERTER_CONFIG", str(tmp_path / "settings.toml"))
    assert _rayos(build)[1]["outcome"] == "done"
