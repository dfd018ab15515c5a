"""The model of a disk forgets what a real one may forget, and nothing else."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from tests.support.modeldisk import HardLink, ModelDisk, PowerCut, Symlink
from upgradeconverter.disk.port import CopyOrder, Disk
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING = Attributes()
ONE_DISK = {"": ("plain", False, "disk"), "vault": ("vault", True, "disk")}
TWO_DISKS = {"": ("plain", False, "disk"), "vault": ("vault", True, "other")}


def contents(disk: ModelDisk, path: str) -> set[bytes | None]:
    """Return what may be read at a path after a power cut, None for nothing there."""
    return {after.read(path, 1 << 20) if after.find(path) else None for after in disk.survivors(limit=1000)}


def places(disk: ModelDisk, *paths: str) -> set[tuple[bool, ...]]:
    """Return which of some paths may be there together after a power cut."""
    return {tuple(after.find(path) is not None for path in paths) for after in disk.survivors(limit=1000)}


def test_model_is_a_disk() -> None:
    """The model has every verb of the port, so the engine can be put on it."""
    disk: Disk = ModelDisk.build({"a": b"1"})
    assert disk.read("a", 10) == b"1"


def test_content_without_a_sync_may_be_lost() -> None:
    """A file whose name is durable may be found whole, half written or empty."""
    disk = ModelDisk.build({})
    disk.write_file("a", b"1234", NOTHING)
    disk.sync_directory("")
    assert contents(disk, "a") == {b"1234", b"12", b""}


def test_synced_content_stays() -> None:
    """A file with a durable name and synced content is found whole."""
    disk = ModelDisk.build({})
    disk.write_file("a", b"1234", NOTHING)
    disk.sync_file("a")
    disk.sync_directory("")
    assert contents(disk, "a") == {b"1234"}


def test_name_without_a_sync_may_be_lost() -> None:
    """Syncing a file does not keep its name."""
    disk = ModelDisk.build({})
    disk.write_file("a", b"1234", NOTHING)
    disk.sync_file("a")
    assert contents(disk, "a") == {b"1234", None}


@pytest.mark.parametrize(
    ("synced", "sure"),
    [
        pytest.param((), False, id="no sync"),
        pytest.param(("old",), False, id="old parent only"),
        pytest.param(("new",), False, id="new parent only"),
        pytest.param(("old", "new"), True, id="both parents"),
    ],
)
def test_rename_needs_both_parents(synced: tuple[str, ...], sure: bool) -> None:
    """A rename between two directories is sure once both were synced, and never shows both names or none."""
    disk = ModelDisk.build({"old/a": b"1", "new": None})
    disk.rename("old/a", "new/a")
    for folder in synced:
        disk.sync_directory(folder)
    assert places(disk, "old/a", "new/a") == ({(False, True)} if sure else {(True, False), (False, True)})


def test_attributes_without_a_sync_may_be_the_old_ones() -> None:
    """A changed mode is sure only after the file was synced."""
    disk = ModelDisk.build({"a": b"1"})
    disk.set_attributes("a", Attributes(mode=0o600))
    assert {after.snapshot()[1][3] for after in disk.survivors()} == {0o600, 0o644}
    disk.sync_file("a")
    assert {after.snapshot()[1][3] for after in disk.survivors()} == {0o600}


def test_removal_without_a_sync_may_be_undone() -> None:
    """A removed file may come back whole, and a removed tree with any of its files."""
    disk = ModelDisk.build({"t/a": b"1", "t/b": b"2"})
    disk.remove("t")
    assert places(disk, "t", "t/a", "t/b") == {
        (True, True, True),
        (True, True, False),
        (True, False, True),
        (True, False, False),
        (False, False, False),
    }


@pytest.mark.parametrize("domains", [ONE_DISK, TWO_DISKS], ids=["same file system", "other file system"])
def test_filesystem_sync_covers_all_of_its_file_system(domains: dict[str, tuple[str, bool, str]]) -> None:
    """After one sync of its file system nothing there is in doubt, and another file system keeps its doubts."""
    disk = ModelDisk.build({"vault": None, "old/a": b"1"}, domains=domains)
    disk.make_directory("vault/d", Attributes(mode=0o755))
    disk.write_file("vault/d/x", b"1234", NOTHING)
    disk.rename("old/a", "old/b")
    disk.sync_filesystem("vault")
    assert contents(disk, "vault/d/x") == {b"1234"}
    assert len(places(disk, "old/a")) == (1 if domains is ONE_DISK else 2)


def test_rename_stays_in_its_domain() -> None:
    """Another encryption policy or file system refuses a rename as the kernel does."""
    disk = ModelDisk.build({"a": b"1", "vault": None}, domains=ONE_DISK)
    with pytest.raises(OSError, match="link") as caught:
        disk.rename("a", "vault/a")
    assert caught.value.errno == errno.EXDEV


def test_rename_never_replaces() -> None:
    """A name that is in use is refused."""
    disk = ModelDisk.build({"a": b"1", "b": b"2"})
    with pytest.raises(FileExistsError):
        disk.rename("a", "b")
    assert disk.read("b", 10) == b"2"


def test_prefixes_and_single_losses_appear() -> None:
    """Of three pending names any first ones may be kept, and any one alone may be lost."""
    disk = ModelDisk.build({"x": None, "y": None, "z": None})
    for name in "xyz":
        disk.make_directory(f"{name}/d", NOTHING)
    found = places(disk, "x/d", "y/d", "z/d")
    prefixes = {(False, False, False), (True, False, False), (True, True, False), (True, True, True)}
    assert found >= prefixes | {(False, True, True), (True, False, True)}


def test_nothing_survives_in_a_directory_that_did_not() -> None:
    """What was moved into a directory whose making was lost is found where it was, never lost with it."""
    disk = ModelDisk.build({"old/a": b"1"})
    disk.make_directory("new", NOTHING)
    disk.rename("old/a", "new/a")
    disk.sync_directory("old")
    disk.sync_directory("new")
    assert places(disk, "old/a", "new", "new/a") == {(True, False, False), (True, True, False), (False, True, True)}
    disk.sync_directory("")
    assert places(disk, "old/a", "new/a") == {(False, True)}


def test_file_systems_have_no_order() -> None:
    """Of two changes on two file systems the later one alone may survive."""
    disk = ModelDisk.build({"vault": None}, domains=TWO_DISKS)
    disk.make_directory("vault/d", NOTHING)
    disk.make_directory("d", NOTHING)
    assert (False, True) in places(disk, "vault/d", "d")


def test_append_is_torn_only_before_it_returns() -> None:
    """Power that fails inside an append may leave half of it; afterwards its content is sure."""
    disk = ModelDisk.build({"log": b"one\n"})
    disk.crash_at = 1
    with pytest.raises(PowerCut):
        disk.append("log", b"two\n")
    assert contents(disk, "log") == {b"one\n", b"one\ntw", b"one\ntwo\n"}
    disk = ModelDisk.build({"log": b"one\n"})
    disk.append("log", b"two\n")
    assert contents(disk, "log") == {b"one\ntwo\n"}


def test_appended_file_needs_its_directory() -> None:
    """The first append makes a file whose name may still be lost."""
    disk = ModelDisk.build({})
    disk.append("log", b"one\n")
    assert contents(disk, "log") == {b"one\n", None}


def test_truncation_is_durable() -> None:
    """A file that was cut stays cut."""
    disk = ModelDisk.build({"log": b"one\ntwo"})
    disk.truncate("log", 4)
    assert contents(disk, "log") == {b"one\n"}


def test_copy_can_stop_in_the_middle() -> None:
    """Power that fails inside the copy of a tree leaves any part of it, which is never taken for the whole."""
    seen: set[tuple[str, ...]] = set()
    copied = False
    for cut in range(100):
        disk = ModelDisk.build({"t/a": b"1", "t/b": b"22"})
        disk.crash_at = cut
        try:
            disk.copy(CopyOrder(source="t", target="u", after=NOTHING))
            copied = True
            break
        except PowerCut:
            seen.add(tuple(row[0] for row in disk.snapshot() if row[0].startswith("u")))
    assert copied
    assert seen == {(), ("u",), ("u", "u/a"), ("u", "u/a", "u/b")}


def test_copy_carries_everything() -> None:
    """A copy has hard links, symbolic links, additions and times, and lacks what is left out."""
    disk = ModelDisk.build({"t/d/a": b"1", "t/d/b": b"2", "t/l": Symlink("d/a"), "t/h": HardLink("t/d/a")})
    disk.copy(CopyOrder(source="t", target="u", after=NOTHING, additions=(("new", b"3"),), omissions=("d/b",)))
    assert [row[0] for row in disk.snapshot() if row[0].startswith("u")] == ["u", "u/d", "u/d/a", "u/h", "u/l", "u/new"]
    facts = {path: disk.find(path) for path in ("t", "u", "t/d", "u/d", "u/d/a", "u/h")}
    times = {path: entry.mtime_ns for path, entry in facts.items() if entry is not None}
    assert (times["u"], times["u/d"]) == (times["t"], times["t/d"])
    assert {facts[path].links for path in ("u/d/a", "u/h")} == {2}  # type: ignore[union-attr]


def test_copy_equals_its_source() -> None:
    """Copy, manifest and comparison agree with each other."""
    disk = ModelDisk.build({"t/d/a": b"1", "t/b": b"22"})
    receipt = disk.copy(CopyOrder(source="t", target="u", after=NOTHING))
    assert receipt.manifest == disk.manifest("t") == disk.manifest("u")
    assert disk.same_content("t", "u")
    disk.append("u/b", b"!")
    assert not disk.same_content("t", "u")


def test_directory_times_follow_their_names() -> None:
    """A directory's time rises with every change of its names, and not with changes deeper down."""
    disk = ModelDisk.build({"d/e": None})
    before = disk.find("d")
    disk.make_directory("d/e/f", NOTHING)
    assert disk.find("d") == before
    disk.make_directory("d/g", NOTHING)
    after = disk.find("d")
    assert before is not None
    assert after is not None
    assert after.mtime_ns > before.mtime_ns


def test_identity_is_kept() -> None:
    """Neither a rename nor a power cut changes an inode number."""
    disk = ModelDisk.build({"a": b"1"})
    entry = disk.find("a")
    disk.rename("a", "b")
    disk.sync_directory("")
    (after,) = disk.survivors()
    moved = after.find("b")
    assert entry is not None
    assert moved is not None
    assert moved.identity == entry.identity


def test_power_fails_at_every_point() -> None:
    """Raising the number of the point reaches the end of the work, and nothing happens from the cut on."""
    cuts = 0
    while True:
        disk = ModelDisk.build({"t/a": b"1", "t/b": b"2"})
        disk.crash_at = cuts
        try:
            disk.rename("t/a", "t/c")
            disk.sync_directory("t")
            disk.remove("t")
        except PowerCut:
            cuts += 1
            assert disk.points == cuts - 1
            continue
        break
    assert cuts == 5


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_calls_can_fail(lasting: bool) -> None:
    """A chosen call fails with the chosen error, and has no effect."""
    disk = ModelDisk.build({"a": b"1"})
    disk.fail_at, disk.fail_errno, disk.fail_on = 1, errno.ENOSPC, lasting
    disk.make_directory("x", NOTHING)
    with pytest.raises(OSError, match="space") as caught:
        disk.make_directory("y", NOTHING)
    assert caught.value.errno == errno.ENOSPC
    assert disk.find("y") is None
    if lasting:
        with pytest.raises(OSError, match="space"):
            disk.rename("a", "b")
    else:
        disk.rename("a", "b")


@pytest.mark.parametrize(
    "sync",
    [
        pytest.param(lambda disk: disk.sync_file("a"), id="file"),
        pytest.param(lambda disk: disk.sync_filesystem(""), id="file system"),
    ],
)
def test_failed_sync_cannot_be_repeated(sync: Callable[[ModelDisk], None]) -> None:
    """Content that a sync failed to write is not written by the next sync, which tells no error."""
    disk = ModelDisk.build({})
    disk.write_file("a", b"1234", NOTHING)
    disk.fail_at = disk.calls
    with pytest.raises(OSError, match="error"):
        sync(disk)
    sync(disk)
    disk.sync_directory("")
    assert b"" in contents(disk, "a")


def test_looking_has_no_effect() -> None:
    """No verb that looks is a point, and links are never followed."""
    disk = ModelDisk.build({"d/a": b"1", "l": Symlink("d"), ".upgradeconverter/journal": b""})
    points = disk.points
    assert disk.find("l/a") is None
    assert [entry.name for entry in disk.entries("")] == ["d", "l"]
    assert disk.survey("d").top_names == ("a",)
    entry = disk.find("l")
    assert entry is not None
    assert entry.kind is Kind.SYMLINK
    assert disk.points == points


def test_snapshot_can_leave_things_out() -> None:
    """The engine's folders and the times of directories can be left out of a comparison."""
    disk = ModelDisk.build({"d/a": b"1"})
    before = disk.snapshot(engine=False, folder_times=False)
    disk.make_directory(".upgradeconverter", NOTHING)
    disk.make_directory("d/.upgradeconverter", NOTHING)
    assert disk.snapshot(engine=False, folder_times=False) == before
    assert disk.snapshot(folder_times=False) != before
    assert disk.snapshot(engine=False) != before


def test_survivors_are_repeatable() -> None:
    """The same seed draws the same disks, none twice, and never more than asked for."""
    disk = ModelDisk.build({str(number): bytes([number]) * 4 for number in range(12)})
    for number in range(12):
        disk.rename(str(number), f"new{number}")
        disk.append(f"new{number}", b"12")
        disk.set_attributes(f"new{number}", Attributes(mode=0o600))
    first = [after.whole() for after in disk.survivors(limit=40, seed=3)]
    assert len(first) == len(set(first)) == 40
    assert first == [after.whole() for after in disk.survivors(limit=40, seed=3)]
    assert first != [after.whole() for after in disk.survivors(limit=40, seed=4)]


def test_settled_disk_has_one_survivor() -> None:
    """With nothing pending there is exactly one disk to find."""
    disk = ModelDisk.build({"a": b"1"})
    (only,) = disk.survivors()
    assert only.whole() == disk.whole()
