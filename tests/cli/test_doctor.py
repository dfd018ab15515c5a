"""`doctor` says what the next boot would do and why, names what is unusual, and changes nothing, whatever is on the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.disktree import capture, diff
from tests.support.olddisk import ENGINE, IMAGE, checked, fake_vault, make_disk, stopping, unsynced, write
from upgradeconverter.journal.record import RecordKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.olddisk import FakeVault

LATEST = ("--target", "latest")


@pytest.fixture(autouse=True)
def vault() -> Iterator[FakeVault]:
    """Return the vault."""
    with unsynced(), fake_vault() as vault:
        yield vault


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Return the old disk."""
    make_disk(tmp_path / "persist")
    return tmp_path / "persist"


def _asked(top: Path, *words: str) -> dict[str, Any]:
    """Ask; that has no effect."""
    before = capture(str(top), engine=True)
    status, document = checked("doctor", "-p", str(top), *words)
    assert status == 0
    assert diff(before, capture(str(top), engine=True)) == ""
    found: dict[str, Any] = document["details"]
    return found


def _says(lines: list[str], *parts: str) -> bool:
    return any(all(part in line for part in parts) for line in lines)


def test_what_the_next_boot_does(top: Path) -> None:
    """Each phase is told with its migrations, and after a conversion that there is nothing to do."""
    details = _asked(top, *LATEST)
    assert _says(details["next boot"], "post-vault", "eve-volumes", "by copy")
    assert details["why this target"] == ["it was asked for"]
    assert details["waits"] == details["last runs"] == []
    assert checked("-p", str(top), *LATEST)[0] == 0
    details = _asked(top)
    assert _says(details["next boot"], "post-vault", "nothing to do")
    assert details["why this target"] == ["the disk carries it, and nothing names another one"]
    assert _says(details["last runs"], "done, legacy -> ")


def test_trial_is_told(top: Path) -> None:
    """A trial that waits is told with what may become of it."""
    checked("-p", str(top), *LATEST, "--trial")
    assert _says(_asked(top)["waits"], "confirm", "rollback")


def test_open_transaction_is_told(top: Path) -> None:
    """What a start left open is told."""
    with stopping((RecordKind.STAGED, "after")):
        checked("-p", str(top), *LATEST)
    assert _says(_asked(top, *LATEST)["waits"], "is open after staged")


@pytest.mark.parametrize("switch", ["off", "dry-run"])
def test_switch_is_told(top: Path, switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the kernel command line switches the converter off is told with what would be done else."""
    monkeypatch.setattr("upgradeconverter.cli.main._kernel_command_line", lambda: f"quiet upgradeconverter={switch}")
    details = _asked(top, *LATEST)
    assert _says(details["next boot"], "nothing is converted", switch)
    assert _says(details["next boot"], "eve-volumes")
    assert _says(details["system"], "kernel command line")


def test_locked_vault_is_told(top: Path, vault: FakeVault) -> None:
    """That a phase will be refused is told with the reason and the next step."""
    vault.locked = True
    details = _asked(top, *LATEST)
    assert _says(details["next boot"], "post-vault: refused", "VaultLocked", "Unlock")
    assert _says(details["system"], "vault: locked")


def test_what_is_unusual(top: Path) -> None:
    """A stranger in the root and a file that fits no rule are named; the folders of the system are not."""
    write(top / "strange/file", b"x")
    write(top / "img/unknown.raw", b"x")
    details = _asked(top, *LATEST)
    assert [line for line in details["unusual"] if "nothing that this pack knows" in line] == [
        "strange: nothing that this pack knows"
    ]
    assert _says(details["next boot"], "leaves 1 alone, NameNotRecognised", "img/unknown.raw")


@pytest.mark.parametrize("name", ["journal", "stamp", "ledger"])
def test_damage_is_told_and_the_rest_too(top: Path, name: str) -> None:
    """Whatever of the engine's own files is damaged, that is named, and everything else is told."""
    checked("-p", str(top), *LATEST)
    with (top / ENGINE / name).open("r+b") as stream:
        stream.write(b"\xff" * 40)
    details = _asked(top, *LATEST)
    assert _says(details["unusual"] + details["next boot"], name)
    assert details["system"]
    assert details["next boot"]


def test_room_and_rights(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is nearly full, or read-only, is told to be so."""
    real = os.fstatvfs

    def full(fd: int) -> os.statvfs_result:
        facts = list(real(fd))
        facts[4], facts[8] = 1, facts[8] | os.ST_RDONLY
        return os.statvfs_result(facts)

    assert (top / IMAGE).exists()
    monkeypatch.setattr("upgradeconverter.cli.doctor.os.fstatvfs", full)
    details = _asked(top, *LATEST)
    assert _says(details["unusual"], "less than 10 %")
    assert _says(details["unusual"], "read-only")
