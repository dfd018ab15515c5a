"""What may survive a power cut is what the rules of a disk allow, each disk once, and can be made again."""

from __future__ import annotations

import os
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.powercut.recorder import Event, Flush, Mark, Write
from tests.powercut.survivors import Replay, Survivor, survivors

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 4096
SIZE = 4 * BLOCK


def _block(byte: bytes, disk: int = 0, number: int = 0) -> Write:
    return Write(disk, number * BLOCK, byte * BLOCK)


def _choices(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - choices that can be repeated


def _replay(folder: Path, events: list[Event], disks: int = 1) -> Replay:
    bases = [folder / f"base-{number}" for number in range(disks)]
    for base in bases:
        base.write_bytes(bytes(SIZE))
    return Replay([str(base) for base in bases], events, str(folder))


def _disks(folder: Path, replay: Replay, survivor: Survivor, disks: int = 1) -> tuple[bytes, ...]:
    images = [folder / f"image-{number}" for number in range(disks)]
    replay.make(survivor, [str(image) for image in images])
    return tuple(image.read_bytes() for image in images)


def _first_bytes(content: bytes) -> str:
    return "".join(chr(content[start]) if content[start] else "-" for start in range(0, SIZE, BLOCK))


def test_all_selections_between_two_flushes(tmp_path: Path) -> None:
    """What was flushed is always there; of what came later there is anything from nothing to all, each once."""
    events: list[Event] = [_block(b"a"), Flush(0), _block(b"b", number=1), _block(b"c", number=2)]
    replay = _replay(tmp_path, events)
    whole = frozenset((0, number) for number in range(4))
    found = [_first_bytes(_disks(tmp_path, replay, each)[0]) for each in survivors(replay, _choices(1), quota=100, whole=whole)]
    assert sorted(found) == ["----", "a---", "a-c-", "ab--", "abc-"]


def test_each_disk_has_its_own_flushes(tmp_path: Path) -> None:
    """A flush of one disk promises nothing of another."""
    events: list[Event] = [_block(b"a"), _block(b"b", disk=1), Flush(1), _block(b"c", disk=1, number=1)]
    replay = _replay(tmp_path, events, disks=2)
    replay.go_to(len(events))
    assert replay.under_way == [0, 3]
    lost = _disks(tmp_path, replay, Survivor(len(events), "subset"), disks=2)
    assert [_first_bytes(each) for each in lost] == ["----", "b---"]


def test_later_writes_win(tmp_path: Path) -> None:
    """Of two writes to one place the later one counts, whether the first one survived or not."""
    replay = _replay(tmp_path, [_block(b"a"), _block(b"b")])
    replay.go_to(2)
    states = {chosen: _first_bytes(_disks(tmp_path, replay, Survivor(2, "subset", chosen))[0]) for chosen in ((0,), (1,), (0, 1))}
    assert states == {(0,): "a---", (1,): "b---", (0, 1): "b---"}
    assert replay.digest(Survivor(2, "subset", (1,))) == replay.digest(Survivor(2, "subset", (0, 1)))


def test_writing_what_is_there_is_no_other_disk(tmp_path: Path) -> None:
    """Disks are told apart by their content, not by how they came to it."""
    replay = _replay(tmp_path, [_block(b"a"), _block(b"\0")])
    replay.go_to(2)
    assert replay.digest(Survivor(2, "prefix", (0, 1))) == replay.digest(Survivor(2, "subset")) == 0


def test_torn_write(tmp_path: Path) -> None:
    """Of a torn write only the named sectors are new."""
    replay = _replay(tmp_path, [_block(b"a")])
    replay.go_to(1)
    content = _disks(tmp_path, replay, Survivor(1, "torn", (0,), 0, (0, 2)))[0]
    assert [content[start : start + 1] for start in range(0, 2048, 512)] == [b"a", b"\0", b"a", b"\0"]


def test_super_blocks_are_never_torn(tmp_path: Path) -> None:
    """A block that is named as whole is there or not."""
    replay = _replay(tmp_path, [_block(b"a"), _block(b"b", number=1)])
    torn = [each.torn for each in survivors(replay, _choices(1), quota=60, whole={(0, 0)}) if each.form == "torn"]
    assert set(torn) == {1}


@pytest.mark.parametrize("quota", [10, 40, 200])
def test_quota(quota: int, tmp_path: Path) -> None:
    """There are about as many survivors as were asked for; the same seed gives the same ones."""
    events: list[Event] = [Mark("start 0")]
    for number in range(60):
        events.append(Write(0, number % 32 * 512, bytes([number + 1]) * 512))
        events += [Flush(0)] if number % 10 == 9 else []
    found = []
    for turn in range(2):
        folder = tmp_path / str(turn)
        os.mkdir(folder)
        replay = _replay(folder, events)
        found.append(list(survivors(replay, _choices(quota), quota=quota)))
        replay.close()
    assert found[0] == found[1]
    assert quota / 2 < len(found[0]) <= quota * 1.2
