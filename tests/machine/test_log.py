"""What qemu writes down is read back as it was written, as far as it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.machine.log import DISCARD, ENTRY, FLUSH, FUA, HEAD, MAGIC, VERSION, NotALogError, events_of
from tests.powercut.recorder import Flush, Write

if TYPE_CHECKING:
    from pathlib import Path

SECTOR = 512


def _head(magic: int = MAGIC, version: int = VERSION, sector: int = SECTOR) -> bytes:
    # The number of entries is what it was a while ago.
    return HEAD.pack(magic, version, 0, sector).ljust(sector, b"\0")


def _entry(start: int, count: int, flags: int = 0, data: bytes = b"", sector: int = SECTOR) -> bytes:
    return ENTRY.pack(start, count, flags, 0).ljust(sector, b"\0") + data


def _log(folder: Path, *parts: bytes) -> str:
    path = folder / "log"
    path.write_bytes(b"".join(parts))
    return str(path)


@pytest.mark.parametrize("sector", [SECTOR, 4096])
def test_writes_and_flushes_keep_their_order(tmp_path: Path, sector: int) -> None:
    """Places and lengths are counted in the sectors that the head names."""
    one, two = b"1" * sector, b"2" * 2 * sector
    log = _log(
        tmp_path,
        _head(sector=sector),
        _entry(3, 1, data=one, sector=sector),
        _entry(0, 0, FLUSH, sector=sector),
        _entry(7, 2, data=two, sector=sector),
    )
    assert list(events_of(log)) == [Write(0, 3 * sector, one), Flush(0), Write(0, 7 * sector, two)]


def test_a_flush_may_come_with_its_write(tmp_path: Path) -> None:
    """What comes with a flush is durable by it."""
    log = _log(tmp_path, _head(), _entry(1, 1, FLUSH, b"x" * SECTOR))
    assert list(events_of(log)) == [Write(0, SECTOR, b"x" * SECTOR), Flush(0)]


def test_a_discard_is_a_write_of_zeros(tmp_path: Path) -> None:
    """It has no data in the log, and a large one is read in parts."""
    sectors = (1 << 20) // SECTOR + 1
    log = _log(tmp_path, _head(), _entry(2, sectors, DISCARD), _entry(0, 0, FLUSH))
    found = list(events_of(log))
    assert found == [Write(0, 1024, bytes(1 << 20)), Write(0, 1024 + (1 << 20), bytes(SECTOR)), Flush(0)]


@pytest.mark.parametrize("tail", [b"", bytes(SECTOR), _entry(9, 2, data=b"half"), _entry(9, 2)[:100]], ids=len)
def test_what_was_not_written_to_its_end_is_left_out(tmp_path: Path, tail: bytes) -> None:
    """The file ends anywhere when qemu is killed; a gap ends it as well."""
    log = _log(tmp_path, _head(), _entry(0, 1, data=b"a" * SECTOR), tail)
    assert list(events_of(log)) == [Write(0, 0, b"a" * SECTOR)]


def test_a_log_that_was_not_begun_is_empty(tmp_path: Path) -> None:
    """The power may go before qemu has written a head."""
    assert list(events_of(_log(tmp_path))) == []


def test_nothing_counts_after_a_gap(tmp_path: Path) -> None:
    """An entry that is not there yet was under way, and so was what comes after it."""
    log = _log(tmp_path, _head(), _entry(0, 1, data=b"a" * SECTOR), bytes(2 * SECTOR), _entry(0, 0, FLUSH))
    assert list(events_of(log)) == [Write(0, 0, b"a" * SECTOR)]


@pytest.mark.parametrize(
    "content", [b"short", _head(magic=1), _head(version=2), _head() + _entry(0, 1, FUA, bytes(SECTOR))], ids=len
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    """No head, another head, and what the disk of the machine does not offer."""
    with pytest.raises(NotALogError):
        list(events_of(_log(tmp_path, content)))
