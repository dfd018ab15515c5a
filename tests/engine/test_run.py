"""The story of a run where it is not a straight one: open transactions, vaults that are not usable, disks that refuse."""

from __future__ import annotations

import errno
import os
import shutil
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.disktree import Tree, capture, diff
from tests.support.olddisk import (
    DIGEST,
    ENGINE,
    IMAGE,
    TARGETS,
    VERIFIED_FOLDER,
    FakeVault,
    checked,
    fake_vault,
    make_disk,
    stopping,
    unsynced,
)
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.journal.record import RecordKind

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = (*TARGETS, IMAGE)
CONVERTED, UNTOUCHED = [True, True, True, False], [False, False, False, True]
STAGED = (RecordKind.STAGED, "after")


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """Return a vault that is a domain of its own."""
    with unsynced(), fake_vault() as state:
        yield state


@pytest.fixture
def top(tmp_path: Path, vault: FakeVault) -> str:
    """Return the old disk."""
    assert not vault.locked
    return make_disk(tmp_path / "persist")


def _there(top: str) -> list[bool]:
    return [os.path.exists(os.path.join(top, path)) for path in ALL]


def _run(top: str, *words: str) -> tuple[int, dict[str, Any]]:
    return checked(*words, "-p", top, "--target", "latest")


def _before(top: str) -> Tree:
    return capture(top, engine=True)


def _stopped(top: str) -> None:
    with stopping(STAGED):
        _run(top)


def test_into_a_vault_and_back(top: str) -> None:
    """What is copied into the vault comes out of it again, to the nanosecond; a second rollback has nothing to do."""
    before = capture(top)
    status, document = _run(top)
    assert (status, document["outcome"], document["details"]["verified"][:4]) == (0, "done", "what")
    assert {item["transfer"] for item in document["items"] if item["operation"] == "Move"} == {"copy"}
    assert _there(top) == CONVERTED
    assert _run(top, "verify")[0] == 0
    assert _run(top, "rollback")[0] == 0
    assert diff(before, capture(top)) == ""
    status, document = _run(top, "rollback")
    assert (status, document["error"]["code"]) == (3, "NothingToRollBack")
    lines = _run(top, "history")[1]["details"]["runs"]
    assert [(each["command"], each["outcome"]) for each in lines] == [("run", "done"), ("rollback", "done")]
    assert lines[0]["time"] <= lines[1]["time"]


@pytest.mark.parametrize("words", [(), ("post-vault",), ("plan",), ("-n",)])
@pytest.mark.parametrize("problem", ["VaultLocked", "VaultMissing", "VaultNotUsable"])
def test_vault_that_cannot_be_used(top: str, vault: FakeVault, problem: str, words: tuple[str, ...]) -> None:
    """Nothing is touched; the run refuses, and so does an audit unless the vault is only not writable."""
    vault.locked, vault.read_only = problem == "VaultLocked", problem == "VaultNotUsable"
    if problem == "VaultMissing":
        os.rmdir(f"{top}/vault")
    before = _before(top)
    status, document = _run(top, *words)
    assert diff(before, capture(top, engine=True)) == ""
    if problem == "VaultNotUsable" and words in (("plan",), ("-n",)):
        assert (status, document["outcome"]) == (0, "planned")
        assert any("writable" in warning for warning in document["warnings"])
    else:
        assert (status, document["outcome"], document["error"]["code"]) == (3, "refused", problem)
        assert document["skipped"][-1]["reason"] == problem


@pytest.mark.parametrize("words", [(), ("post-vault",), ("plan",)])
def test_locked_vault_is_never_said_to_need_nothing(top: str, vault: FakeVault, words: tuple[str, ...]) -> None:
    """Where all outside of the vault is converted nobody can say what there is to do in a locked one."""
    assert _run(top)[0] == 0
    assert _run(top, *words)[1]["outcome"] == "nothing-to-do"
    vault.locked = True
    status, document = _run(top, *words, "--target", "15.0.0")
    assert (status, document["error"]["code"]) == (3, "VaultLocked")
    assert _run(top, "pre-vault")[0] == 0


@pytest.mark.parametrize("words", [(), ("post-vault",), ("rollback",)])
def test_open_transaction_waits_for_the_vault(top: str, vault: FakeVault, words: tuple[str, ...]) -> None:
    """While the vault is locked a transaction that lies in it is not touched; then it is finished, or taken back."""
    _stopped(top)
    vault.locked = True
    before = _before(top)
    status, document = _run(top, *words)
    assert (status, document["error"]["code"]) == (3, "VaultLocked")
    assert diff(before, capture(top, engine=True)) == ""
    vault.locked = False
    status, document = _run(top, *words)
    assert (status, document["outcome"]) == (0, "done")
    assert [each["result"] for each in document["recovered"]] == ["undone" if words == ("rollback",) else "finished"]
    assert _there(top) == (UNTOUCHED if words == ("rollback",) else CONVERTED)
    assert not os.path.exists(f"{top}/vault/{ENGINE}")


@pytest.mark.parametrize("locked", [False, True])
def test_open_transaction_waits_for_its_phase(top: str, vault: FakeVault, locked: bool) -> None:
    """The phase before the vault leaves a transaction that lies in the vault alone and says so; that is no failure."""
    _stopped(top)
    vault.locked = locked
    before = _before(top)
    status, document = _run(top, "pre-vault")
    assert (status, document["warnings"]) == (0, ["an open transaction waits for the phase that may touch the vault"])
    assert diff(before, capture(top, engine=True)) == ""


def test_open_transaction_is_shown(top: str) -> None:
    """Audit, status and a rollback's dry run name the open transaction and touch nothing."""
    _stopped(top)
    before = _before(top)
    shown = _run(top, "plan")[1]["details"]["open transactions"]
    assert shown == _run(top, "status")[1]["details"]["open transactions"]
    assert shown == _run(top, "rollback", "-n")[1]["details"]["open transactions"]
    assert [line.split(" ", 1)[1] for line in shown] == ["after staged"]
    assert diff(before, capture(top, engine=True)) == ""


def test_undone_from_the_trash(top: str) -> None:
    """As long as the trash is there, even a transaction that only had to be closed can be taken back."""
    before = capture(top)
    with stopping((RecordKind.DONE, "before")):
        _run(top)
    status, document = _run(top, "rollback")
    assert (status, [each["result"] for each in document["recovered"]]) == (0, ["undone"])
    assert diff(before, capture(top)) == ""


def test_past_the_point_of_return(top: str) -> None:
    """Without the trash such a transaction cannot be undone: it is finished, and then turned round."""
    before = capture(top)
    with stopping((RecordKind.DONE, "before")):
        _run(top)
    shutil.rmtree(f"{top}/{ENGINE}/trash")
    status, document = _run(top, "rollback")
    assert (status, [each["result"] for each in document["recovered"]]) == (0, ["finished"])
    assert diff(before, capture(top)) == ""


def test_rollback_of_a_finished_run_needs_the_key(top: str, vault: FakeVault) -> None:
    """What lies in a locked vault cannot be brought back, and nothing else is brought back without it."""
    _run(top)
    vault.locked = True
    before = capture(top)
    status, document = _run(top, "rollback")
    assert (status, document["error"]["code"]) == (3, "VaultLocked")
    assert diff(before, capture(top)) == ""
    assert _run(top, "verify")[1]["details"]["deviations"] == ["vault: expected a usable vault, found it locked"]


def _refuse(patch: pytest.MonkeyPatch, verb: str, number: int) -> None:
    """Let the disk refuse one call of a verb."""
    calls = 0
    real = getattr(PosixDisk, verb)

    def refusing(disk: PosixDisk, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO), "somewhere")
        return real(disk, *arguments, **options)

    patch.setattr(PosixDisk, verb, refusing)


@pytest.mark.parametrize("verb", ["rename", "sync_filesystem", "append", "write_file", "make_directory", "sync_directory"])
@pytest.mark.parametrize("number", [1, 2, 3, 5, 8])
def test_disk_that_refuses_once(top: str, verb: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk refuses ends in everything put back or everything done, as the status says; and later it succeeds."""
    before = capture(top)
    with monkeypatch.context() as patch:
        _refuse(patch, verb, number)
        status, document = _run(top)
    if status:
        ended = (status, document["outcome"], document["error"]["code"])
        assert ended in ((4, "rolled-back", "DiskFailed"), (3, "refused", "DiskRefused"))
        assert diff(before, capture(top)) == ""
    else:
        assert _there(top) == CONVERTED or {skip["reason"] for skip in document["skipped"]} == {"DiskFailed"}
    assert _run(top)[0] == 0
    assert _there(top) == CONVERTED


@pytest.mark.parametrize(("verb", "name"), [("append", "ledger"), ("write_file", "stamp.new"), ("sync_file", "stamp.new")])
def test_done_is_done(top: str, verb: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When history or stamp cannot be written the run is none the less done, says so, and is looked at again."""
    with monkeypatch.context() as patch:
        real = getattr(PosixDisk, verb)

        def refusing(disk: PosixDisk, path: str, *arguments: Any) -> Any:
            if path == f"{ENGINE}/{name}":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            return real(disk, path, *arguments)

        patch.setattr(PosixDisk, verb, refusing)
        status, document = _run(top)
    assert (status, document["outcome"]) == (0, "done")
    assert _there(top) == CONVERTED
    assert _run(top)[1]["outcome"] == "nothing-to-do"
    assert _run(top, "rollback")[0] == 0


@pytest.mark.parametrize("steps", [1, 64])
def test_full_disk_leaves_one_group(top: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit while it is copied is left by name, and the others go on, also in a wave that needs its folders."""
    monkeypatch.setattr("upgradeconverter.planning.fitting.WAVE_STEPS", steps)
    real = PosixDisk.copy

    def full(disk: PosixDisk, order: Any, **options: Any) -> Any:
        if order.source == IMAGE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), order.target)
        return real(disk, order, **options)

    with monkeypatch.context() as patch:
        patch.setattr(PosixDisk, "copy", full)
        status, document = _run(top)
    assert (status, document["outcome"]) == (0, "done")
    assert [(skip["path"], skip["reason"]) for skip in document["skipped"]] == [(IMAGE, "NoSpace")]
    assert _there(top) == [False, True, True, True]
    assert _run(top)[0] == 0
    assert _there(top) == CONVERTED


def test_failed_run_is_in_the_history(top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that had to be put back is told by the history as well; one that was refused is not."""
    with monkeypatch.context() as patch:
        _refuse(patch, "sync_filesystem", 1)
        assert _run(top)[0] == 4
    os.rename(f"{top}/vault", f"{top}/elsewhere")
    assert _run(top)[0] == 3
    assert [run["outcome"] for run in _run(top, "history")[1]["details"]["runs"]] == ["rolled-back"]


def test_rollback_goes_on_where_one_stopped(top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback that the disk stopped half way is taken up again by the next one."""
    monkeypatch.setattr("upgradeconverter.planning.fitting.WAVE_STEPS", 1)
    before = capture(top)
    assert _run(top)[0] == 0
    with monkeypatch.context() as patch:
        _refuse(patch, "sync_filesystem", 2)
        status, document = _run(top, "rollback")
    assert (status, document["error"]["code"]) == (4, "DiskFailed")
    assert {item["status"] for item in document["items"]} >= {"done", "planned"}
    assert _run(top, "rollback")[0] == 0
    assert diff(before, capture(top)) == ""
    assert _run(top, "rollback")[1]["error"]["code"] == "NothingToRollBack"


@pytest.mark.parametrize("read_back", ["all", "sample", "none"])
def test_copies_are_read_back(top: str, read_back: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `all`, a staged copy that reads back differently never counts."""
    before = capture(top)
    with monkeypatch.context() as patch:
        patch.setattr(PosixDisk, "same_content", lambda *_: False)
        status, document = _run(top, "--read-back", read_back)
    if read_back == "all":
        assert (status, document["error"]["code"]) == (4, "DiskFailed")
        assert diff(before, capture(top)) == ""
    assert _run(top, "--read-back", read_back)[0] == 0
    assert _there(top) == CONVERTED


def test_false_digest_is_set_aside(top: str) -> None:
    """Content that is not what its name says goes to the quarantine, is told, and comes back with a rollback."""
    (Path(top) / VERIFIED_FOLDER / "name of the download").write_bytes(b"QFI\xfbsomething else")
    before = capture(top)
    status, document = _run(top)
    assert (status, [skip["reason"] for skip in document["skipped"]]) == (0, ["DigestMismatch"])
    aside = capture(f"{top}/{ENGINE}/quarantine").values()
    assert [entry["data"] for entry in aside if "data" in entry] == [
        [[0, "base64", b64encode(b"QFI\xfbsomething else").decode()]]
    ]
    assert not os.path.exists(f"{top}/vault/verifier/verified/{DIGEST}")
    assert _run(top, "rollback")[0] == 0
    assert diff(before, capture(top)) == ""
