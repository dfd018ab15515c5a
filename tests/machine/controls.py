"""What has to be seen: mistakes that are planted in the machine, in its disk, and in what is left on it."""

from __future__ import annotations

import os
import subprocess
from random import Random
from typing import TYPE_CHECKING

from tests.machine.chain import GOOD, OLD, checked
from tests.machine.disk import PLACE, case
from tests.powercut.blockdev import copy_sparse
from tests.powercut.recorder import Flush
from tests.powercut.survivors import survivors

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine.chain import Rig
    from tests.powercut.recorder import Event

STATES = 40
Seen = tuple[int, int]


def by_mv(rig: Rig) -> Seen:
    """In place of the converter the machine moves each artifact by GNU mv."""
    ending, events = rig.boot(rig.scene.images[0], ("upgradeconverter=off", "machine.control"))
    assert ending.results, "the control did not come to its end"
    return _look_at_survivors(rig, events)


def forgetful_disk(rig: Rig) -> Seen:
    """The converter works, but the disk that was told to flush has kept nothing for sure."""
    _, events = rig.boot(rig.scene.images[0], (GOOD,))
    # Whatever comes of that is bad: names without content as well as a file system that cannot be mounted.
    return _look_at_survivors(rig, [event for event in events if not isinstance(event, Flush)], anything=True)


def _look_at_survivors(rig: Rig, events: list[Event], *, anything: bool = False) -> Seen:
    states = bad = 0
    with rig.replay(rig.scene.images[0], events) as replay:
        for survivor in survivors(replay, Random(1), quota=STATES, whole=PLACE.whole):  # noqa: S311 - can be repeated
            replay.make(survivor, [rig.path("control")])
            _, problems = rig.look(rig.path("control"))
            states, bad = states + 1, bad + any(anything or text.startswith(("D1", "D2")) for text in problems)
    return states, bad


def _converted(rig: Rig) -> str:
    """Return the path of a disk after an undisturbed boot."""
    image = rig.path("converted")
    if not os.path.exists(image):
        rig.boot(rig.scene.images[0], (GOOD,))
        copy_sparse(rig.path("disk"), image)
    copy_sparse(image, rig.path("planted"))
    return rig.path("planted")


def _planted(rig: Rig, plant: Callable[[str], None]) -> Seen:
    image = _converted(rig)
    with rig.scene.place.open([image], rig.bench.top, case()) as root:
        plant(f"{root}/{rig.scene.oracle.artifacts[0].new}")
    return 1, int(any(text.startswith("D1") for text in rig.look(image)[1]))


def removed(rig: Rig) -> Seen:
    """One volume is gone."""
    return _planted(rig, os.unlink)


def changed(rig: Rig) -> Seen:
    """One byte of a volume is another one, and its time is as it was."""

    def plant(path: str) -> None:
        found = os.stat(path)
        with open(path, "r+b") as stream:
            stream.seek(found.st_size // 2)
            byte = stream.read(1)
            stream.seek(-1, os.SEEK_CUR)
            stream.write(bytes([byte[0] ^ 1]))
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))

    return _planted(rig, plant)


def damaged(rig: Rig) -> Seen:
    """The file system has a name whose inode is not in use."""
    image = _converted(rig)
    subprocess.run(["debugfs", "-w", "-R", "clri persist/checkpoint", image], check=True, capture_output=True)
    return 1, int(bool(checked(image)))


def old_file_changed(rig: Rig) -> Seen:
    """An old file has another content when the old system is back."""
    image = rig.path("planted")
    copy_sparse(rig.scene.images[0], image)
    with rig.scene.place.open([image], rig.bench.top, case()) as root, open(f"{root}/checkpoint/lastconfig", "ab") as stream:
        stream.write(b"x")
    ending, _ = rig.boot(image, OLD)
    return 1, int(bool(ending.results) and ending.results.get("old") != "whole")


CONTROLS: dict[str, Callable[[Rig], Seen]] = {
    "mv in place of the converter": by_mv,
    "a disk that forgets what it flushed": forgetful_disk,
    "a volume removed": removed,
    "a byte changed": changed,
    "a damaged file system": damaged,
    "an old file changed": old_file_changed,
}
