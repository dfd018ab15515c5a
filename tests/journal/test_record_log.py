"""Records survive the way to the disk and back; a torn tail is cut, any other damage is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.modeldisk import ModelDisk
from upgradeconverter.errors import JournalDamagedError, JournalTooNewError
from upgradeconverter.journal.log import Journal, JournalView
from upgradeconverter.journal.record import (
    NO_PREVIOUS,
    VERSION,
    FramingError,
    Record,
    RecordKind,
    checksum,
    decode,
    encode,
)

PATH = "engine/journal"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def journal_of(content: bytes) -> Journal:
    """Return a journal on a disk that holds exactly some bytes."""
    return Journal(disk=ModelDisk.build({PATH: content}), path=PATH)


def lines_of(*records: tuple[str, RecordKind, dict[str, Any]]) -> list[bytes]:
    """Return the lines of a sound journal with some records."""
    lines: list[bytes] = []
    for sequence, (txid, kind, payload) in enumerate(records):
        previous = checksum(lines[-1][:-1]) if lines else NO_PREVIOUS
        record = Record(sequence=sequence, txid=txid, kind=kind, payload=payload, previous=previous)
        lines.append(encode(record))
    return lines


LINES = lines_of(
    ("one", RecordKind.BEGIN, {"version": VERSION, "steps": []}),
    ("one", RecordKind.STAGED, {"identities": {"1": 7}}),
    ("one", RecordKind.COMMITTED, {}),
    ("two", RecordKind.BEGIN, {"version": VERSION}),
)


def kinds(view: JournalView) -> list[tuple[str, RecordKind]]:
    """Return transaction and kind of every record."""
    return [(record.txid, record.kind) for t in view.transactions for record in t.records]


ALL = [
    ("one", RecordKind.BEGIN),
    ("one", RecordKind.STAGED),
    ("one", RecordKind.COMMITTED),
    ("two", RecordKind.BEGIN),
]


@given(
    st.integers(min_value=0),
    st.text(),
    st.sampled_from(RecordKind),
    st.dictionaries(st.text(max_size=5), JSON, max_size=4),
)
def test_round_trip(sequence: int, txid: str, kind: RecordKind, payload: dict[str, Any]) -> None:
    """What was encoded is decoded again, from one line of ASCII."""
    record = Record(sequence=sequence, txid=txid, kind=kind, payload=payload, previous=NO_PREVIOUS)
    line = encode(record)
    assert line.isascii()
    assert line.find(b"\n") == len(line) - 1
    assert decode(line[:-1]) == record


def test_names_that_are_not_utf8() -> None:
    """A file name of any bytes survives in a payload."""
    name = b"img/\xff\xfe\n".decode("utf-8", "surrogateescape")
    record = Record(sequence=0, txid="t", kind=RecordKind.BEGIN, payload={"path": name}, previous=NO_PREVIOUS)
    assert decode(encode(record)[:-1]).payload["path"] == name


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"{}", id="no keys"),
        pytest.param(b"{", id="no JSON"),
        pytest.param(b"\xff", id="no text"),
        pytest.param(
            b'{"kind":"other","payload":{},"previous":"","sequence":0,"txid":""}',
            id="unknown kind",
        ),
        pytest.param(
            b'{"kind":"begin","payload":3,"previous":"","sequence":0,"txid":""}',
            id="payload is a number",
        ),
    ],
)
def test_sound_line_that_is_no_record(body: bytes) -> None:
    """A line whose checksum fits but which is no record is refused."""
    with pytest.raises(FramingError):
        decode(checksum(body).encode() + b" " + body)


def test_append_and_read() -> None:
    """What one instance appends the next one reads, transactions in the order in which they began."""
    disk = ModelDisk.build({"engine/other": b""})
    journal = Journal(disk=disk, path=PATH)
    assert journal.read(repair=True) == JournalView()
    journal.append("one", RecordKind.BEGIN, {"steps": [1]})
    journal.append("one", RecordKind.ABORTED, {})
    journal.append("two", RecordKind.BEGIN, {})
    again = Journal(disk=disk, path=PATH)
    view = again.read(repair=True)
    assert [(t.txid, t.last, t.is_open) for t in view.transactions] == [
        ("one", RecordKind.ABORTED, False),
        ("two", RecordKind.BEGIN, True),
    ]
    assert view.transactions[0].payload(RecordKind.BEGIN) == {"steps": [1], "version": VERSION}
    assert view.transactions[0].payload(RecordKind.UNDO) is None
    assert [t.txid for t in view.open] == ["two"]
    again.append("two", RecordKind.STAGED, {})
    assert Journal(disk=disk, path=PATH).read(repair=True).open[0].last is RecordKind.STAGED


def test_appended_record_survives_a_power_cut() -> None:
    """A record is durable, and so is the journal's name, when `append` returns."""
    disk = ModelDisk.build({"engine/other": b""})
    journal = Journal(disk=disk, path=PATH)
    journal.append("one", RecordKind.BEGIN, {})
    for after in disk.survivors(limit=100):
        view = Journal(disk=after, path=PATH).read(repair=True)
        assert kinds(view) == [("one", RecordKind.BEGIN)]


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(LINES[3][:-1], id="newline missing"),
        pytest.param(LINES[3][:20], id="half a line"),
        pytest.param(LINES[3][:1], id="one byte"),
        pytest.param(bytes(100), id="zero bytes"),
        pytest.param(bytes(512), id="sector of zero bytes"),
    ],
)
def test_torn_tail(tail: bytes) -> None:
    """A torn last line is cut, once and durably, and the journal goes on behind what was whole."""
    journal = journal_of(b"".join(LINES[:3]) + tail)
    view = journal.read(repair=True)
    assert kinds(view) == ALL[:3]
    assert view.torn == len(b"".join(LINES[:3]))
    assert journal.disk.read(PATH, 1 << 20) == b"".join(LINES[:3])
    journal.append("one", RecordKind.DONE, {})
    after = Journal(disk=journal.disk, path=PATH).read(repair=True)
    assert (kinds(after), after.torn) == ([*ALL[:3], ("one", RecordKind.DONE)], None)


def test_torn_tail_without_repair() -> None:
    """Without `repair` the torn tail is seen and left."""
    content = b"".join(LINES[:3]) + b"torn"
    journal = journal_of(content)
    view = journal.read(repair=False)
    assert (kinds(view), view.torn) == (ALL[:3], len(content) - 4)
    assert journal.disk.read(PATH, 1 << 20) == content


def test_every_prefix_is_readable() -> None:
    """Wherever an append is torn, all whole lines before it are kept."""
    content = b"".join(LINES)
    for size in range(len(content) + 1):
        whole = content[:size].count(b"\n")
        assert kinds(journal_of(content[:size]).read(repair=True)) == ALL[:whole]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([LINES[0], b"garbage\n", LINES[1], LINES[2]], id="garbage between"),
        pytest.param([LINES[0], b"\n", LINES[1], LINES[2]], id="empty line"),
        pytest.param([LINES[0], LINES[1][5:], LINES[2]], id="beginning of a line lost"),
        pytest.param([LINES[0], LINES[1][:-5] + b"\n", LINES[2]], id="end of a line lost"),
        pytest.param([LINES[0], b"garbage\n", b"torn"], id="garbage before a torn tail"),
        pytest.param([LINES[0], LINES[2], LINES[1], LINES[3]], id="exchanged"),
        pytest.param([LINES[1], LINES[0]], id="first two exchanged"),
        pytest.param([LINES[0], LINES[2]], id="line lost"),
        pytest.param([LINES[1]], id="first line lost"),
        pytest.param([LINES[0], LINES[0]], id="line twice"),
        pytest.param(
            [LINES[0], lines_of(("x", RecordKind.BEGIN, {}), ("one", RecordKind.STAGED, {}))[1]],
            id="line of another journal",
        ),
    ],
)
def test_damage_in_the_middle(lines: list[bytes]) -> None:
    """Any damage but a torn tail is refused, and nothing is cut."""
    journal = journal_of(b"".join(lines))
    with pytest.raises(JournalDamagedError):
        journal.read(repair=True)
    assert journal.disk.read(PATH, 1 << 20) == b"".join(lines)


@pytest.mark.parametrize("number", range(len(LINES)))
@pytest.mark.parametrize("end", [b" ", b"\0", b"\x0b"])
def test_lost_line_end(number: int, end: bytes) -> None:
    """A record whose end is another byte is refused wherever it stands: it was whole once, so it is not torn."""
    lines = list(LINES)
    lines[number] = lines[number][:-1] + end
    with pytest.raises(JournalDamagedError):
        journal_of(b"".join(lines)).read(repair=True)


@pytest.mark.parametrize(
    "version",
    [pytest.param(VERSION + 1, id="next"), pytest.param("one", id="text"), pytest.param(None, id="null")],
)
def test_newer_version(version: object) -> None:
    """A journal of a newer format is refused as such and left untouched."""
    content = b"".join(lines_of(("one", RecordKind.BEGIN, {"version": version}))) + b"torn"
    journal = journal_of(content)
    with pytest.raises(JournalTooNewError):
        journal.read(repair=True)
    assert journal.disk.read(PATH, 1 << 20) == content


def test_archive() -> None:
    """An archived journal keeps its records under the new name, and the next one begins anew."""
    journal = journal_of(b"".join(LINES))
    journal.read(repair=True)
    journal.archive("engine/journal.1")
    assert journal.disk.find(PATH) is None
    assert journal.disk.read("engine/journal.1", 1 << 20) == b"".join(LINES)
    journal.append("three", RecordKind.BEGIN, {})
    assert kinds(Journal(disk=journal.disk, path=PATH).read(repair=True)) == [("three", RecordKind.BEGIN)]
