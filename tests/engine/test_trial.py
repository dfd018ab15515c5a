"""A trial keeps the old layout whole until somebody confirms the new one; until then both can be had."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.disktree import Tree, capture, diff
from tests.support.dying import dying
from tests.support.olddisk import (
    ENGINE,
    IMAGE,
    PREPARED,
    TARGETS,
    VERIFIED_FOLDER,
    FakeVault,
    checked,
    contents,
    fake_vault,
    make_disk,
    unsynced,
)
from tests.support.vaults import mounted

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD = (IMAGE, PREPARED, f"{VERIFIED_FOLDER}/name of the download")
MARK = f"{ENGINE}/waiting"


@pytest.fixture(autouse=True, params=[True, False], ids=["vault", "one domain"])
def vault(request: pytest.FixtureRequest) -> Iterator[FakeVault]:
    """Let the vault be a domain of its own, or a plain directory."""
    if not request.param:
        with unsynced():
            yield FakeVault()
        return
    with unsynced(), fake_vault() as state:
        yield state


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Return the old disk."""
    return Path(make_disk(tmp_path / "persist"))


def _do(top: Path, *words: str) -> tuple[int, dict[str, Any]]:
    return checked(*words, "-p", str(top), "--target", "latest")


def _there(top: Path, paths: tuple[str, ...]) -> list[bool]:
    return [(top / path).exists() for path in paths]


def _old_part(tree: Tree) -> Tree:
    """Return what the old system knows of, without owners, labels and times of folders."""
    known = ("img", "runx", "downloads", "checkpoint")
    return {
        path: {name: value for name, value in entry.items() if name in ("kind", "data", "size", "destination")}
        for path, entry in tree.items()
        if path.split("/")[0] in known
    }


def test_both_layouts_are_whole(top: Path) -> None:
    """After a trial the old system finds all that it left, the new one all that it needs, and it is known that it waits."""
    before = capture(str(top))
    planned = _do(top, "plan", "--trial")[1]
    status, document = _do(top, "--trial")
    assert (status, document["outcome"]) == (0, "done")
    assert {item["status"] for item in document["items"]} == {"waiting"}
    assert {item["undo"] for item in (*planned["items"], *document["items"])} == {"until confirmed"}
    assert _there(top, (*OLD, *TARGETS, MARK)) == [True] * 7
    assert diff(_old_part(before), _old_part(capture(str(top)))) == ""
    assert set(OLD) < set(_do(top, "status")[1]["details"]["waiting for confirmation"])


def test_confirmed(top: Path) -> None:
    """Confirming gives what a run without a trial gives, once; after that there is nothing to confirm."""
    other = Path(make_disk(top.parent / "other"))
    _do(other)
    _do(top, "--trial")
    status, document = _do(top, "confirm")
    assert (status, document["outcome"]) == (0, "done")
    assert _there(top, (*OLD, *TARGETS, MARK)) == [False] * 3 + [True] * 3 + [False]
    assert diff(*({path: _settled(entry) for path, entry in capture(str(each)).items()} for each in (other, top))) == ""
    assert _do(top, "confirm")[1]["outcome"] == "nothing-to-do"
    assert _do(top, "--trial")[1]["outcome"] == "nothing-to-do"


def test_taken_back(top: Path) -> None:
    """Until it is confirmed a trial can be taken back as if it had never been."""
    before = capture(str(top))
    _do(top, "--trial")
    assert _do(top, "rollback")[0] == 0
    assert diff(before, capture(str(top))) == ""
    assert not (top / MARK).exists()


@pytest.mark.parametrize("second", ["confirm", "rollback"])
def test_digest_of_another_content(top: Path, second: str) -> None:
    """What does not have the digest in its name stays for the old system until the trial is confirmed, and is then set aside."""
    (top / OLD[2]).write_bytes(b"QFI\xfbdamaged content")
    before = capture(str(top))
    document = _do(top, "--trial")[1]
    assert [(skip["path"], skip["reason"]) for skip in document["skipped"]] == [(OLD[2], "DigestMismatch")]
    assert _there(top, (*OLD, *TARGETS)) == [True] * 5 + [False]
    document = _do(top, second)[1]
    if second == "rollback":
        assert diff(before, capture(str(top))) == ""
        return
    assert [(skip["path"], skip["reason"]) for skip in document["skipped"]] == [(OLD[2], "DigestMismatch")]
    assert _there(top, OLD) == [False] * 3
    assert len(_do(top, "status")[1]["details"]["set aside"]) == 1
    assert _do(top, "rollback")[0] == 0
    assert diff(before, capture(str(top))) == ""


def test_taken_back_after_it_was_confirmed(top: Path) -> None:
    """After it was confirmed a trial is a run like any other."""
    before = capture(str(top))
    _do(top, "--trial")
    _do(top, "confirm")
    assert _do(top, "rollback")[0] == 0
    assert diff(before, capture(str(top))) == ""


def test_later_starts_leave_it_waiting(top: Path) -> None:
    """Starts before it is confirmed change nothing of a trial, and ask for the same layout."""
    _do(top, "--trial")
    before = capture(str(top))
    for words in ((), ("--trial",), ("plan",), ("verify",)):
        status, document = _do(top, *words)
        assert (status, document["items"]) == (0, []), words
    assert diff(before, capture(str(top))) == ""
    status, document = checked("-p", str(top), "--target", "design")
    assert (status, document["error"]["code"]) == (3, "TrialWaits")


@pytest.mark.parametrize("second", [("confirm",), ("rollback",), ("--trial",)], ids=["confirm", "rollback", "trial"])
def test_death_anywhere(tmp_path: Path, second: tuple[str, ...]) -> None:
    """Die in a trial, or in what follows it, and do it again: the result is that of nobody having died."""
    expected: Tree = {}
    verbs = 0
    for at in (None, *range(1 << 10)):
        top = Path(make_disk(tmp_path / str(at)))
        before = capture(str(top))
        if second != ("--trial",):
            _do(top, "--trial")
        with dying(at) as done:
            _do(top, *second)
        if at is None:
            verbs, expected = len(done), capture(str(top))
            continue
        if at == verbs:
            break
        _do(top, *second)
        found = {path: _settled(entry) for path, entry in capture(str(top)).items() if path}
        assert diff({path: _settled(entry) for path, entry in expected.items() if path}, found) == "", at
        if second != ("confirm",):
            _do(top, "rollback")
            assert diff(*({path: e for path, e in tree.items() if path} for tree in (before, capture(str(top))))) == "", at


def _settled(entry: dict[str, Any]) -> dict[str, Any]:
    late = 1_700_000_000_000_000_000
    return {name: value for name, value in entry.items() if name not in ("mtime", "atime") or entry["mtime"] < late}


def test_writes_of_both_systems(top: Path) -> None:
    """What the new system writes on trial is there after confirming; what the old one writes meanwhile is never thrown away."""
    _do(top, "--trial")
    with (top / TARGETS[0]).open("ab") as image:
        image.write(b"by the new system")
    with (top / PREPARED / "rootfs/etc/hostname").open("ab") as file:
        file.write(b"by the old system")
    before = capture(str(top), engine=True)
    for words in (("confirm",), ("confirm", "-n")):
        # What the trial made of it is out of date, and must not be what counts from now on.
        status, document = _do(top, *words)
        assert (status, document["error"]["code"]) == (3, "TrialOvertaken")
        assert diff(before, capture(str(top), engine=True)) == ""
    assert (_do(top, "--trial")[0], _do(top, "confirm")[0]) == (0, 0)
    assert (top / TARGETS[0]).read_bytes().endswith(b"by the new system")
    assert (top / TARGETS[1] / "rootfs/etc/hostname").read_bytes().endswith(b"by the old system")


@pytest.mark.root
def test_both_do_not_fit(tmp_path: Path, vault: FakeVault) -> None:
    """Without room for both nothing is begun; told so, what does not fit is converted for good, the rest on trial."""
    assert not vault.locked
    with mounted(str(tmp_path / "image"), str(tmp_path / "fs"), size="24M") as place:
        top = Path(make_disk(Path(place) / "persist"))
        (top / IMAGE).write_bytes(os.urandom(6 << 20))
        (top / PREPARED / "rootfs/large").write_bytes(os.urandom(6 << 20))
        os.sync()
        before, inside = capture(str(top), engine=True), contents(str(top))
        status, document = _do(top, "--trial")
        if status == 0:
            # In one domain a second name takes no room.
            assert {item["status"] for item in document["items"]} == {"waiting"}
            return
        assert (status, document["error"]["code"]) == (3, "BothDoNotFit")
        assert diff(before, capture(str(top), engine=True)) == ""
        status, document = _do(top, "--trial", "--when-short", "irreversible")
        assert (status, ["converted at once" in text for text in document["warnings"]].count(True)) == (0, 1)
        moved = {(item["status"], item["undo"]) for item in document["items"] if item["operation"] == "Move"}
        assert moved == {("waiting", "until confirmed"), ("done", "moved back")}
        assert (_there(top, TARGETS), not inside - contents(str(top))) == ([True] * 3, True)
        assert _do(top, "rollback")[0] == 0
        assert diff(*(_known(tree) for tree in (before, capture(str(top), engine=True)))) == ""


@pytest.mark.root
def test_what_is_renamed_needs_no_room(tmp_path: Path, vault: FakeVault) -> None:
    """A tree that there is no room to copy is renamed at once where that is allowed, since a rename takes none."""
    vault.locked = False
    with (
        mounted(str(tmp_path / "image"), str(tmp_path / "fs"), size="24M") as place,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("upgradeconverter.disk.native.encryption_policy", lambda _: b"")
        top = Path(make_disk(Path(place) / "persist"))
        (top / PREPARED / "rootfs/large").write_bytes(os.urandom(12 << 20))
        os.sync()
        before = capture(str(top))
        assert _do(top, "--trial")[1]["error"]["code"] == "BothDoNotFit"
        status, document = _do(top, "--trial", "--when-short", "irreversible")
        assert (status, document["skipped"]) == (0, [])
        found = {item["source"]: (item["status"], item["transfer"]) for item in document["items"] if item["operation"] == "Move"}
        assert (found[PREPARED], found[IMAGE]) == (("done", "rename"), ("waiting", "copy"))
        assert _do(top, "rollback")[0] == 0
        assert diff(before, capture(str(top))) == ""


def _known(tree: Tree) -> Tree:
    return {path: entry for path, entry in tree.items() if path and not path.startswith(ENGINE)}
