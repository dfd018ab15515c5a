"""Every damage of a small journal, one after the other, is healed by the torn-tail rule or refused by name.

The journal is that of two waves of which the second was taken back, between which the machine stopped. Its last record is so long
that it lies in several sectors, as `begin` and `staged` do.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.support.modeldisk import ModelDisk
from upgradeconverter.errors import JournalDamagedError, JournalTooNewError
from upgradeconverter.journal.log import Journal
from upgradeconverter.journal.record import NO_PREVIOUS, VERSION, Record, RecordKind, checksum, encode

PATH = "engine/journal"
SECTOR = 512


def _lines(*records: tuple[str, RecordKind, dict[str, object]]) -> list[bytes]:
    lines: list[bytes] = []
    for sequence, (txid, kind, payload) in enumerate(records):
        previous = checksum(lines[-1][:-1]) if lines else NO_PREVIOUS
        lines.append(encode(Record(sequence=sequence, txid=txid, kind=kind, payload=payload, previous=previous)))
    return lines


LINES = _lines(
    ("one", RecordKind.BEGIN, {"version": VERSION, "steps": [], "run": {"pack": "eve"}}),
    ("one", RecordKind.STAGED, {"steps": [], "staged": {"1": 7}}),
    ("two", RecordKind.BEGIN, {"version": VERSION}),
    ("one", RecordKind.COMMITTED, {}),
    ("two", RecordKind.UNDO, {}),
    ("one", RecordKind.CONFIRMED, {}),
    ("two", RecordKind.ABORTED, {}),
    ("one", RecordKind.DONE, {}),
    ("three", RecordKind.BEGIN, {"version": VERSION, "steps": ["@ long *" * 200]}),
)
WHOLE = b"".join(LINES)
ENDS = [len(b"".join(LINES[:count])) for count in range(len(LINES) + 1)]
_Words = list[tuple[str, str]]


def _read(content: bytes) -> tuple[_Words | str, bytes]:
    """Return the records of a journal in order, or the code by which it was refused, and what is in the file afterwards."""
    disk = ModelDisk.build({PATH: content})
    try:
        view = Journal(disk=disk, path=PATH).read(repair=True)
    except (JournalDamagedError, JournalTooNewError) as error:
        return error.code, disk.read(PATH, 1 << 20)
    records = sorted((r for t in view.transactions for r in t.records), key=lambda record: record.sequence)
    return [(record.txid, record.kind.value) for record in records], disk.read(PATH, 1 << 20)


WORDS = _read(WHOLE)[0]
REFUSED = "JournalDamaged"


def _is_refused_untouched(content: bytes) -> bool:
    return _read(content) == (REFUSED, content)


def test_sound_journal_is_read_as_it_is() -> None:
    """Nothing is wrong with the journal that is going to be damaged."""
    assert (len(WORDS), _read(WHOLE)[1]) == (len(LINES), WHOLE)


def test_every_flipped_bit() -> None:
    """Whichever bit of whichever record is another one, the last record and the ends of lines included: refused."""
    for place in range(len(WHOLE) * 8):
        damaged = bytearray(WHOLE)
        damaged[place // 8] ^= 1 << place % 8
        assert _is_refused_untouched(bytes(damaged)), divmod(place, 8)


@pytest.mark.parametrize("byte", [0, ord("\n"), ord(" "), ord("0"), 0xFF])
def test_every_byte_replaced(byte: int) -> None:
    """Nor does it help a damaged byte to look like the end of a line, a blank, or one that never reached the disk."""
    for place in range(len(WHOLE)):
        damaged = WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :]
        assert damaged == WHOLE or _is_refused_untouched(damaged), place


def test_every_truncation() -> None:
    """Cut anywhere, all records before the cut are there, the torn one is gone from the file, and the journal can go on."""
    for size in range(len(WHOLE) + 1):
        whole = sum(end <= size for end in ENDS) - 1
        assert _read(WHOLE[:size]) == (WORDS[:whole], WHOLE[: ENDS[whole]]), size


def test_every_record_twice() -> None:
    """A record that is there a second time, right behind itself or anywhere later, is refused."""
    for number in range(len(LINES)):
        for place in range(number + 1, len(LINES) + 1):
            assert _is_refused_untouched(b"".join((*LINES[:place], LINES[number], *LINES[place:]))), (number, place)


def test_every_pair_swapped() -> None:
    """Two records that follow each other, exchanged, are refused, whether they are of one transaction or of two."""
    for first, second in pairwise(range(len(LINES))):
        lines = list(LINES)
        lines[first], lines[second] = lines[second], lines[first]
        assert _is_refused_untouched(b"".join(lines)), first


def test_every_record_moved() -> None:
    """A record anywhere else than in its place is refused."""
    for number in range(len(LINES)):
        rest = LINES[:number] + LINES[number + 1 :]
        for place in range(len(LINES)):
            assert place == number or _is_refused_untouched(b"".join((*rest[:place], LINES[number], *rest[place:]))), (
                number,
                place,
            )


def test_every_record_removed() -> None:
    """A record that is missing is refused, and so are several; only the last one may not have been written yet."""
    for first in range(len(LINES)):
        for after in range(first + 1, len(LINES)):
            assert _is_refused_untouched(b"".join(LINES[:first] + LINES[after:])), (first, after)


def test_every_byte_doubled_or_left_out() -> None:
    """A byte too many or too few is refused; only without its very last byte the last record was torn."""
    for place in range(len(WHOLE)):
        assert _is_refused_untouched(WHOLE[: place + 1] + WHOLE[place:]), place
        if place < len(WHOLE) - 1:
            assert _is_refused_untouched(WHOLE[:place] + WHOLE[place + 1 :]) or WHOLE[place] == WHOLE[place + 1], place


def test_every_transaction_of_another_journal() -> None:
    """Records of another journal are refused wherever they are put, sound as they are in themselves."""
    foreign = _lines(("other", RecordKind.BEGIN, {"version": VERSION}), ("other", RecordKind.ABORTED, {}))
    for place in range(len(LINES) + 1):
        for strange in (foreign, foreign[1:]):
            assert _is_refused_untouched(b"".join((*LINES[:place], *strange, *LINES[place:]))), place


@pytest.mark.parametrize("garbage", [b"x", b"\0", b"garbage", bytes(700), b"\xff" * 4096, LINES[0][:-1], LINES[3][:9]], ids=len)
def test_garbage_without_an_end_behind_it(garbage: bytes) -> None:
    """What has no end and follows a whole record is a torn one: it is cut, and every record stays."""
    for count in range(len(LINES) + 1):
        assert _read(WHOLE[: ENDS[count]] + garbage) == (WORDS[:count], WHOLE[: ENDS[count]]), count


@pytest.mark.parametrize(
    "garbage", [b"x\n", b"\n", b"\0\n", b"\0x\n", b"garbage\n", b"{}\n" * 9, b"x\nx", b"\xff" * 4096 + b"\n"], ids=repr
)
def test_garbage_with_an_end_behind_it(garbage: bytes) -> None:
    """A line that has its end is none of ours, wherever it stands."""
    for count in range(len(LINES) + 1):
        assert _is_refused_untouched(WHOLE[: ENDS[count]] + garbage + WHOLE[ENDS[count] :]), count


@pytest.mark.parametrize("size", [1, 7, SECTOR - 1, SECTOR, SECTOR + 1])
def test_zeros_anywhere(size: int) -> None:
    """Bytes that became zeros are refused, but for the sectors of the last record, which may never have reached the disk."""
    start = ENDS[-2]
    for place in range(len(WHOLE)):
        damaged = WHOLE[:place] + bytes(min(size, len(WHOLE) - place)) + WHOLE[place + size :]
        result = _read(damaged)
        if place >= start and result != (REFUSED, damaged):
            assert result == (WORDS[:-1], WHOLE[:start]), place
            assert place == start or place % SECTOR == 0 or place + size >= len(WHOLE), place
            assert (place + size) % SECTOR == 0 or place + size >= len(WHOLE), place
        else:
            assert result == (REFUSED, damaged), place


def test_every_selection_of_sectors_that_reached_the_disk() -> None:
    """Whichever sectors of the last record a power cut left as zeros: the record is cut, all others stay."""
    start = ENDS[-2]
    edges = [start, *range((start // SECTOR + 1) * SECTOR, len(WHOLE), SECTOR), len(WHOLE)]
    for missing in range(1, 1 << (len(edges) - 1)):
        damaged = bytearray(WHOLE)
        for number, (first, after) in enumerate(pairwise(edges)):
            if missing >> number & 1:
                damaged[first:after] = bytes(after - first)
        assert _read(bytes(damaged)) == (WORDS[:-1], WHOLE[:start]), bin(missing)


def test_end_of_a_record_in_a_sector_of_its_own() -> None:
    """A record whose end alone did not reach the disk is torn; one whose end became something else was whole and is refused."""
    begin = ("one", RecordKind.BEGIN, {"version": VERSION, "steps": ""})
    gap = SECTOR - (len(_lines(begin)[0]) - 1) % SECTOR
    line = _lines((*begin[:2], {"version": VERSION, "steps": "x" * gap}))[0]
    assert len(line) % SECTOR == 1
    assert _read(line[:-1] + b"\0") == ([], b"")
    for end in range(1, 256):
        assert bytes([end]) == b"\n" or _is_refused_untouched(line[:-1] + bytes([end])), end


def test_every_record_of_a_newer_version() -> None:
    """A record of a newer engine is refused as such wherever it stands, with everything that follows it untouched."""
    for count in range(1, len(LINES) + 1):
        previous = checksum(LINES[count - 1][:-1])
        newer = Record(
            sequence=count, txid="new", kind=RecordKind.BEGIN, payload={"version": VERSION + 1, "more": []}, previous=previous
        )
        content = b"".join(LINES[:count]) + encode(newer) + b"what only a newer engine understands\n"
        assert _read(content) == ("JournalTooNew", content), count
