"""With `--on-failure=take-back` a start that fails leaves the disk as it was before it: nobody meets a half-made layout."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cases import load_cases
from tests.support.disktree import build, capture, diff
from tests.support.dying import ProcessDeathError
from tests.support.olddisk import ENGINE, TARGETS, checked, fake_vault, make_disk, unsynced, write
from upgradeconverter.engine import giveup
from upgradeconverter.errors import EXIT_REFUSED, EXIT_ROLLED_BACK, EXIT_TAKEN_BACK, EXIT_USAGE, EXIT_WEDGED
from upgradeconverter.journal.log import Journal
from upgradeconverter.journal.record import RecordKind

if TYPE_CHECKING:
    from collections.abc import Iterator

TAKE_BACK = ("--on-failure", "take-back")


@pytest.fixture(autouse=True)
def _vault() -> Iterator[None]:
    with unsynced(), fake_vault():
        yield


@pytest.fixture(params=[(), ("--trial",)], ids=["at once", "trial"])
def words(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Return how the program is started; one item makes a transaction of its own."""
    monkeypatch.setattr("upgradeconverter.planning.fitting.WAVE_STEPS", 1)
    found: tuple[str, ...] = request.param
    return found


@pytest.fixture
def top(tmp_path: Path) -> str:
    """Return the old disk."""
    return make_disk(tmp_path / "persist")


def _run(top: str, *words: str) -> tuple[int, dict[str, Any]]:
    return checked(*words, "-p", top, "--target", "latest")


def _tree(top: str) -> dict[str, Any]:
    # The history of the engine and its folder stay, and so the root's own time.
    return {path: entry for path, entry in capture(top).items() if path and not path.startswith(ENGINE)}


class _Refusal:
    """Lets a record of the journal be refused the nth time that it is written, and all behind it if `for_good`."""

    def __init__(
        self, patch: pytest.MonkeyPatch, kind: RecordKind, number: int, error: BaseException, *, for_good: bool = False
    ) -> None:
        self.left, self.append = number, Journal.append

        def append(journal: Journal, txid: str, record: RecordKind, payload: dict[str, Any]) -> None:
            self.left -= record is kind
            if self.left <= 0 and (for_good or (record is kind and self.left == 0)):
                raise error
            self.append(journal, txid, record, payload)

        patch.setattr(Journal, "append", append)


NO_SPACE = OSError(errno.ENOSPC, "No space left on device", "journal")


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("kind", [RecordKind.BEGIN, RecordKind.STAGED])
def test_all_is_as_before(
    top: str, words: tuple[str, ...], kind: RecordKind, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was converted before the failure is back, the start says so, and the next one converts all."""
    before = _tree(top)
    with monkeypatch.context() as patch:
        _Refusal(patch, kind, number, NO_SPACE)
        status, document = _run(top, *words, *TAKE_BACK)
    assert diff(before, _tree(top)) == ""
    assert (status, document["outcome"]) == (EXIT_TAKEN_BACK, "rolled-back")
    assert {item["status"] for item in document["items"]} <= {"undone", "left", "planned"}
    assert document["error"]["code"] in ("DiskFailed", "Halted")
    assert _run(top, *words)[0] == 0
    assert set(TARGETS) <= set(_tree(top))


def test_without_it_what_is_done_stays(top: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above sees something: without the option the first item lies at its new place."""
    _Refusal(monkeypatch, RecordKind.STAGED, 2, NO_SPACE)
    status, _ = _run(top, *words)
    assert status == EXIT_ROLLED_BACK
    assert set(TARGETS) & set(_tree(top))


def test_start_that_died_before(top: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a start did that was killed, in a run that never came to its end, is taken back with the rest."""
    before = _tree(top)
    with monkeypatch.context() as patch:
        _Refusal(patch, RecordKind.COMMITTED, 2, ProcessDeathError())
        with pytest.raises(ProcessDeathError):
            _run(top, *words)
    with monkeypatch.context() as patch:
        _Refusal(patch, RecordKind.BEGIN, 1, NO_SPACE)
        status, _ = _run(top, *words, *TAKE_BACK)
    assert status == EXIT_TAKEN_BACK
    assert diff(before, _tree(top)) == ""


def test_earlier_run_stays(top: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier run came to its end with is not touched, a trial that waits neither, and `rollback` still knows it."""
    assert _run(top, *words)[0] == 0
    content = b"QFI\xfbverified later"
    write(Path(top) / f"downloads/appImg.obj/verified/{hashlib.sha256(content).hexdigest()}/name", content)
    between = _tree(top)
    with monkeypatch.context() as patch:
        _Refusal(patch, RecordKind.STAGED, 1, NO_SPACE)
        assert _run(top, *words, *TAKE_BACK)[0] == EXIT_TAKEN_BACK
    assert diff(between, _tree(top)) == ""
    assert _run(top, "rollback")[0] == 0
    assert not set(TARGETS) & set(_tree(top))


def test_other_phases_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a start behind the vault did, and died, is none of the business of the phase before it that fails then."""
    monkeypatch.setattr("upgradeconverter.planning.fitting.WAVE_STEPS", 1)
    settings = next(case.tree for case in load_cases("eve") if case.name == "config_moves")
    build(settings | capture(make_disk(tmp_path / "old")), str(tmp_path / "persist"))
    top, words = str(tmp_path / "persist"), ("--trial", "-p", str(tmp_path / "persist"), "--target", "5.15.0")
    with monkeypatch.context() as patch:
        _Refusal(patch, RecordKind.BEGIN, 3, ProcessDeathError())
        with pytest.raises(ProcessDeathError):
            checked("post-vault", *words)
    between = _tree(top)
    assert set(TARGETS) & set(between)
    with monkeypatch.context() as patch:
        _Refusal(patch, RecordKind.STAGED, 1, NO_SPACE)
        assert checked("pre-vault", *words, *TAKE_BACK)[0] == EXIT_TAKEN_BACK
    assert diff(between, _tree(top)) == ""
    assert checked("all", *words)[0] == 0


def test_start_that_died_in_a_run_that_goes_on(top: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a start did that died is taken back also where a trial of an earlier start waits, which stays."""
    assert _run(top, *words)[0] == 0
    before = _tree(top)
    for number in range(3):
        content = f"QFI\xfbverified {number}".encode("latin-1")
        write(Path(top) / f"downloads/appImg.obj/verified/{hashlib.sha256(content).hexdigest()}/name", content)
    between = _tree(top)
    with monkeypatch.context() as patch:
        _Refusal(patch, RecordKind.COMMITTED, 2, ProcessDeathError())
        with pytest.raises(ProcessDeathError):
            _run(top, *words)
    with monkeypatch.context() as patch:
        _Refusal(patch, RecordKind.STAGED, 1, NO_SPACE)
        assert _run(top, *words, *TAKE_BACK)[0] == EXIT_TAKEN_BACK
    assert diff(between, _tree(top)) == ""
    assert set(before) <= set(between)
    assert _run(top, *words)[0] == 0


def test_refusal_touches_nothing(top: str) -> None:
    """What is not understood stays so: there is nothing to take back."""
    before = capture(top)
    assert checked("-p", top, "--target", "nonsense", *TAKE_BACK)[0] == EXIT_USAGE
    assert diff(before, capture(top)) == ""


def test_what_cannot_be_taken_back(top: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses the way back too is not said to be as before; the next start goes on."""
    with monkeypatch.context() as patch:
        _Refusal(patch, RecordKind.STAGED, 2, NO_SPACE, for_good=True)
        status, _ = _run(top, *words, *TAKE_BACK)
    assert status in (EXIT_ROLLED_BACK, EXIT_WEDGED)
    assert _run(top, *words)[0] == 0
    assert set(TARGETS) <= set(_tree(top))


@pytest.mark.parametrize("then", ["run", "rollback"])
def test_death_on_the_way_back(tmp_path: Path, words: tuple[str, ...], then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the program dies while it takes back what failed, the next start converts all, and a rollback brings all back."""
    deaths = 0
    while True:
        top = make_disk(tmp_path / f"persist{deaths}")
        before = _tree(top)
        if not _dies_on_the_way_back(top, words, deaths, monkeypatch):
            break
        deaths += 1
        if then == "run":
            assert _run(top, *words)[0] == 0
            assert set(TARGETS) <= set(_tree(top))
        elif (status := _run(top, "rollback")[0]) != EXIT_REFUSED:
            assert (status, diff(before, _tree(top))) == (0, "")
    assert deaths > 3


def _dies_on_the_way_back(top: str, words: tuple[str, ...], spared: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Let a start fail, and die when it writes a record to the journal for taking back; False when it needs no more of them."""
    with monkeypatch.context() as patch:
        _Refusal(patch, RecordKind.STAGED, 3, NO_SPACE)
        refusing, left = Journal.append, spared

        def append(journal: Journal, txid: str, record: RecordKind, payload: dict[str, Any]) -> None:
            nonlocal left
            if has_failed:
                left -= 1
                if left < 0:
                    raise ProcessDeathError
            refusing(journal, txid, record, payload)

        has_failed = []
        give_up = giveup._take_back

        def noticed(*arguments: Any) -> None:
            has_failed.append(1)
            give_up(*arguments)

        patch.setattr(Journal, "append", append)
        patch.setattr(giveup, "_take_back", noticed)
        try:
            assert _run(top, *words, *TAKE_BACK)[0] == EXIT_TAKEN_BACK
        except ProcessDeathError:
            return True
    return False
