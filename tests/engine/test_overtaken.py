"""Between a trial and its confirmation the old system may run again and write; each of the four cases is settled as declared.

Volumes go by what is newest, the containerd store by what lies at the target, verified files ask.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.disktree import capture, diff
from tests.support.dying import dying
from tests.support.olddisk import (
    IMAGE,
    PREPARED,
    TARGETS,
    VERIFIED_FOLDER,
    FakeVault,
    append,
    checked,
    contents,
    fake_vault,
    left,
    make_disk,
    set_times,
    unsynced,
    write,
)
from upgradeconverter.errors import EXIT_DONE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STORE = "io.containerd.metadata.v1.bolt/meta.db"
# What is converted, a file of it under its old name and its new one.
FILE = (IMAGE, IMAGE, TARGETS[0])
TREE = (PREPARED, f"{PREPARED}/rootfs/etc/hostname", f"{TARGETS[1]}/rootfs/etc/hostname")
VERIFIED = (f"{VERIFIED_FOLDER}/name of the download", f"{VERIFIED_FOLDER}/name of the download", TARGETS[2])
CONTAINERD = ("containerd", f"containerd/{STORE}", f"vault/containerd/{STORE}")
EVERY = [
    pytest.param(FILE, id="file"),
    pytest.param(TREE, id="tree"),
    pytest.param(VERIFIED, id="verified"),
    pytest.param(CONTAINERD, id="containerd"),
]

Item = tuple[str, str, str]


@pytest.fixture(autouse=True)
def vault() -> Iterator[FakeVault]:
    """Let the vault be a domain of its own, so that everything has two versions."""
    with unsynced(), fake_vault() as state:
        yield state


def _disk(place: Path) -> Path:
    make_disk(place)
    write(place / "containerd" / STORE, b"a database of many containers")
    set_times(place)
    return place


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Return an old disk that was converted on trial."""
    place = _disk(tmp_path / "persist")
    assert _do(place, "--trial")[0] == 0
    return place


def _do(top: Path, *words: str) -> tuple[int, dict[str, Any]]:
    return checked(*words, "-p", str(top), "--target", "latest")


def _is_somewhere(top: Path, text: str) -> bool:
    """Return whether any file has a text, under whatever name or set aside."""
    return any(text in content for content in contents(str(top)))


@pytest.mark.parametrize("item", EVERY)
def test_neither_changed(top: Path, item: Item) -> None:
    """Where nobody wrote the trial stands, and confirming it puts the old one away."""
    before = capture(str(top))
    assert left(_do(top, "--trial")[1]) == {}
    assert diff(before, capture(str(top))) == ""
    assert left(_do(top, "confirm")[1]) == {}
    assert (not (top / item[0]).exists(), (top / item[2]).exists()) == (True, True)


@pytest.mark.parametrize("item", EVERY)
def test_only_the_new_one_changed(top: Path, item: Item) -> None:
    """What the new system writes on trial stays what it is, and outlives the old one."""
    _, _, new = item
    append(top / new, b" new")
    before = capture(str(top))
    assert left(_do(top, "--trial")[1]) == {}
    assert diff(before, capture(str(top))) == ""
    _do(top, "confirm")
    assert (top / new).read_bytes().endswith(b" new")


def _but_folders(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the items of a report without the directories that go once they are empty."""
    return [item for item in document["items"] if item["source"] not in ("img", "runx", "runx/pods", "runx/pods/prepared")]


@pytest.mark.parametrize(
    "item", [pytest.param(FILE, id="file"), pytest.param(TREE, id="tree"), pytest.param(CONTAINERD, id="store")]
)
def test_only_the_old_one_changed(top: Path, item: Item) -> None:
    """What the old system went on with after a fallback is converted anew, on trial again."""
    path, old, new = item
    append(top / old, b" old")
    planned = _do(top, "plan")[1]
    assert {step["source"]: step["operation"] for step in _but_folders(planned)} == {_artifact(item): "Retire", path: "Move"}
    status, document = _do(top, "--trial")
    assert (status, left(document)) == (0, {})
    assert {step["source"]: step["status"] for step in _but_folders(document)} == {_artifact(item): "done", path: "waiting"}
    assert (top / old).read_bytes() == (top / new).read_bytes()
    assert (top / new).read_bytes().endswith(b" old")
    settled = capture(str(top))
    assert _do(top, "--trial")[1]["items"] == []
    assert diff(settled, capture(str(top))) == ""
    _do(top, "confirm")
    assert (not (top / path).exists(), (top / new).read_bytes().endswith(b" old")) == (True, True)


def _artifact(item: Item) -> str:
    """Return the new name of the whole of what is converted."""
    return item[2].removesuffix(item[1].removeprefix(item[0])) if item[1] != item[0] else item[2]


@pytest.mark.parametrize("item", EVERY[:2])
def test_both_changed_and_the_newest_counts(top: Path, item: Item) -> None:
    """What the old system went on with after a fallback is the newest; what the new one had written is set aside."""
    path, old, new = item
    append(top / new, b" new")
    append(top / old, b" old")
    inside = contents(str(top))
    status, document = _do(top, "--trial")
    assert (status, left(document)) == (0, {_artifact(item): "Diverged"})
    assert {step["source"]: step["status"] for step in _but_folders(document)} == {
        _artifact(item): "quarantined",
        path: "waiting",
    }
    assert (top / new).read_bytes().endswith(b" old")
    assert not inside - contents(str(top))
    assert _do(top, "--trial")[1]["items"] == []
    _do(top, "confirm")
    assert not (top / path).exists()
    assert (top / new).read_bytes().endswith(b" old")


def test_both_changed_and_the_target_counts(top: Path) -> None:
    """The containerd store that the new system works with stays; the other one is set aside once that is confirmed."""
    path, old, new = CONTAINERD
    append(top / new, b" new")
    append(top / old, b" old")
    before, inside = capture(str(top)), contents(str(top))
    assert left(_do(top, "--trial")[1]) == {path: "Diverged"}
    assert diff(before, capture(str(top))) == ""
    status, document = _do(top, "confirm")
    assert (status, left(document)) == (0, {path: "Diverged"})
    assert (not (top / path).exists(), (top / new).read_bytes().endswith(b" new")) == (True, True)
    assert contents(str(top)).keys() >= inside.keys()


def test_both_changed_and_nobody_knows(top: Path) -> None:
    """Where the migration leaves it to people, both stay, before and after it is confirmed."""
    path, old, new = VERIFIED
    append(top / new, b" new")
    append(top / old, b" old")
    before = capture(str(top))
    assert left(_do(top, "--trial")[1]) == {path: "Diverged"}
    assert diff(before, capture(str(top))) == ""
    _do(top, "confirm")
    assert ((top / old).read_bytes()[-4:], (top / new).read_bytes()[-4:]) == (b" old", b" new")


def test_deleted_by_one_and_written_by_the_other(top: Path) -> None:
    """A volume that the new system deleted and the old one wrote to is not converted anew behind anybody's back."""
    (top / TARGETS[0]).unlink()
    append(top / IMAGE, b" old")
    assert left(_do(top, "--trial")[1]) == {IMAGE: "Diverged"}
    assert left(_do(top, "confirm")[1]) == {IMAGE: "ChangedMeanwhile"}
    assert (top / IMAGE).read_bytes().endswith(b" old")


def test_deleted_by_the_new_system(top: Path) -> None:
    """What was deleted under its new name is the only one left under its old, so it is not put away (D3)."""
    (top / TARGETS[0]).unlink()
    assert left(_do(top, "confirm")[1]) == {IMAGE: "ChangedMeanwhile"}
    assert (top / IMAGE).exists()


@pytest.mark.parametrize("item", EVERY)
def test_deleted_by_the_old_system(top: Path, item: Item) -> None:
    """A trial of which the old system deleted something is taken back all the same; the only one left is set aside and named."""
    path, _, new = item
    (shutil.rmtree if (top / path).is_dir() else os.unlink)(top / path)
    inside = contents(str(top))
    status, document = _do(top, "rollback")
    assert (status, list(left(document).values())) == (EXIT_DONE, ["Diverged"])
    assert not (top / new).exists()
    assert not any((top / target).exists() for target in TARGETS)
    assert {each for each in inside if "snapshotid" not in each} & contents(str(top)).keys()
    assert _do(top, "rollback")[1]["error"]["code"] == "NothingToRollBack"
    assert _do(top, "--trial")[0] == 0


def test_another_file_in_place_of_a_second_name(tmp_path: Path, vault: FakeVault) -> None:
    """In one domain both names are one file; a system that replaces its own has another version."""
    vault.locked = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("upgradeconverter.disk.native.encryption_policy", lambda _: b"")
        place = _disk(tmp_path / "one")
        _do(place, "--trial")
        assert (place / IMAGE).stat().st_ino == (place / TARGETS[0]).stat().st_ino
        write(place / "img/fresh", b"made anew by the old system")
        (place / "img/fresh").rename(place / IMAGE)
        _do(place, "--trial")
        assert (place / TARGETS[0]).read_bytes() == b"made anew by the old system"
        assert (place / IMAGE).stat().st_ino == (place / TARGETS[0]).stat().st_ino


def test_the_vault_waits_for_its_phase(top: Path, vault: FakeVault) -> None:
    """A start that must not, or cannot, touch the vault leaves the trial as it is; the first one that may settles it."""
    append(top / IMAGE, b" old")
    before = capture(str(top))
    _do(top, "pre-vault", "--trial")
    vault.read_only = True
    _do(top, "--trial")
    vault.read_only, vault.locked = False, True
    _do(top, "--trial")
    vault.locked = False
    assert diff(before, capture(str(top))) == ""
    _do(top, "post-vault", "--trial")
    assert (top / TARGETS[0]).read_bytes().endswith(b" old")


@pytest.mark.parametrize("changed", ["old", "both"])
def test_taken_back_after_a_fallback(tmp_path: Path, changed: str) -> None:
    """A trial that was settled anew can be taken back as well: the old system finds what it wrote last, and nothing else."""
    place = _disk(tmp_path / "persist")
    before = capture(str(place))
    _do(place, "--trial")
    append(place / IMAGE, b" old")
    if changed == "both":
        append(place / TARGETS[0], b" new")
    written = capture(str(place))[IMAGE]
    _do(place, "--trial")
    assert _do(place, "rollback")[0] == 0
    assert diff({**before, IMAGE: written}, capture(str(place))) == ""
    assert _is_somewhere(place, " new") == (changed == "both")


@pytest.mark.parametrize("changed", ["old", "both"])
def test_death_anywhere(tmp_path: Path, changed: str) -> None:
    """Die while a trial is settled anew, and start again: the result is that of nobody having died."""
    expected, verbs = {}, 0
    for at in (None, *range(1 << 10)):
        place = _disk(tmp_path / str(at))
        _do(place, "--trial")
        for path, text in ((IMAGE, b" old"), (TREE[1], b" old"), (TARGETS[0], b" new"))[: 3 if changed == "both" else 2]:
            append(place / path, text)
        with dying(at) as done:
            _do(place, "--trial")
        if at is None:
            verbs, expected = len(done), _known(place)
            continue
        if at == verbs:
            break
        _do(place, "--trial")
        assert _known(place) == expected, at
        assert _is_somewhere(place, " new") == (changed == "both"), at
        assert _do(place, "rollback")[0] == 0, at
        assert [(place / target).exists() for target in TARGETS] == [False] * 3, at


def _known(place: Path) -> dict[str, Any]:
    return {path: (entry.get("data"), entry.get("mode")) for path, entry in capture(str(place)).items()}
