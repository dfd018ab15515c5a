"""Appending to the journal and reading it back.

Calling sequence: `read` once at start; then `append` for each record. `archive` moves a journal without open transactions
aside, so that the live one stays short.

Guarantees: `append` returns only when the record is durable, the file's name in its folder included (J1); the folder's own name
is made durable by who makes it. `read` cuts a torn tail (J3).

Errors: JournalDamagedError, JournalTooNewError; OSError from the disk.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from upgradeconverter.errors import JournalDamagedError, JournalTooNewError
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

if TYPE_CHECKING:
    from collections.abc import Collection

    from upgradeconverter.disk.port import Disk

_LIMIT = 1 << 30
# What a record says that is short however much is done.
_BRIEF = ("run", "trial", "version")
# What a disk writes as a whole, at the least.
_SECTOR = 512


class Transaction(Struct, frozen=True, kw_only=True):
    """All records of one wave, oldest first."""

    txid: str
    records: tuple[Record, ...]

    @property
    def last(self) -> RecordKind:
        """Kind of the last record that says where the transaction stands; pieces do not."""
        return next(record.kind for record in reversed(self.records) if record.kind is not RecordKind.PIECE)

    @property
    def is_open(self) -> bool:
        """Whether it still has to be finished or undone."""
        return self.last not in (RecordKind.DONE, RecordKind.ABORTED) and not self.is_waiting

    @property
    def is_waiting(self) -> bool:
        """Whether it is a trial whose old layout stays until somebody confirms it."""
        return self.last is RecordKind.COMMITTED and bool((self.payload(RecordKind.BEGIN) or {}).get("trial"))

    def pieces(self) -> dict[int, dict[str, Any]]:
        """Return the last that was recorded of each stream, by number of its step."""
        return {record.payload["step"]: record.payload for record in self.records if record.kind is RecordKind.PIECE}

    def payload(self, kind: RecordKind) -> dict[str, Any] | None:
        """Return the payload of the record of that kind, or None."""
        for record in self.records:
            if record.kind is kind:
                return record.payload
        return None


class JournalView(Struct, frozen=True, kw_only=True):
    """What the journal says: transactions in the order in which they began; `torn` is the size to cut to, or None."""

    transactions: tuple[Transaction, ...] = ()
    torn: int | None = None

    @property
    def open(self) -> tuple[Transaction, ...]:
        """The transactions that still have to be finished or undone."""
        return tuple(t for t in self.transactions if t.is_open)

    @property
    def waiting(self) -> tuple[Transaction, ...]:
        """The trials that wait for somebody to confirm them, or to take them back."""
        return tuple(t for t in self.transactions if t.is_waiting)


def _whole_size(line: bytes) -> int:
    """Return the size of the whole record that a line begins with, 0 when it begins with none."""
    head = line.find(b" ") + 1
    try:
        # One sign for each byte, whatever it is, so that places in the text are places in the line.
        size = head + json.JSONDecoder().raw_decode(line[head:].decode("latin-1"))[1]
        decode(line[:size])
    except (FramingError, ValueError, RecursionError):
        return 0
    return size


def _is_torn(line: bytes, offset: int, sequence: int, *, ends: bool) -> bool:
    """Return whether the last line, at some offset of the file, can be what a power cut left of appending one record (J3).

    A record that was whole once may have had an effect, so what follows it must be explained by a sector that never reached the
    disk and reads as zeros. So must zeros inside a line that has its end; a single byte that was altered does not look like that,
    and where zeros took several records away the end tells the number of a later one.
    """
    size = _whole_size(line)
    if size:
        rest = line[size:]
        return not ends and (not rest or (not rest.strip(b"\0") and (offset + size) % _SECTOR == 0))
    if not ends:
        return True
    number = re.search(rb'"sequence":([0-9]+),"txid":"[^"]*"}$', line)
    if number is not None and int(number[1]) != sequence:
        return False
    runs = [(offset + run.start(), offset + run.end()) for run in re.finditer(rb"\0+", line)]
    return bool(runs) and all((start == offset or start % _SECTOR == 0) and end % _SECTOR == 0 for start, end in runs)


def _in_brief(record: Record) -> Record:
    return replace(record, payload={name: value for name, value in record.payload.items() if name in _BRIEF})


class Journal(Struct):
    """The journal file of one root."""

    disk: Disk
    path: str
    _sequence: int = 0
    _previous: str = NO_PREVIOUS
    _exists: bool = False
    _size: int = 0

    def read(self, *, repair: bool, brief: Collection[RecordKind] = ()) -> JournalView:
        """Read everything; with `repair`, cut a torn tail durably.

        `brief` are the kinds of records of which nobody wants to know what was to be done, only in which run: in that is most
        of what is read.
        """
        self._forget()
        entry = self.disk.find(self.path)
        if entry is None:
            return JournalView()
        self._exists = True
        content = self.disk.read(self.path, _LIMIT)
        records, good = self._parse(content, brief)
        self._size = good
        torn = good if good < len(content) else None
        if torn is not None and repair:
            self.disk.truncate(self.path, torn)
        grouped: dict[str, list[Record]] = {}
        for record in records:
            grouped.setdefault(record.txid, []).append(record)
        transactions = tuple(Transaction(txid=txid, records=tuple(r)) for txid, r in grouped.items())
        return JournalView(transactions=transactions, torn=torn)

    def _parse(self, content: bytes, brief: Collection[RecordKind]) -> tuple[list[Record], int]:
        records: list[Record] = []
        offset = 0
        # One line at a time, since each can be large.
        while (end := content.find(b"\n", offset)) >= 0:
            line, number = content[offset:end], len(records) + 1
            try:
                record = decode(line)
            except FramingError as error:
                if end + 1 == len(content) and _is_torn(line, offset, self._sequence, ends=True):
                    return records, offset
                raise JournalDamagedError(self.path, number, "a whole record", str(error)) from error
            self._check(record, number)
            self._advance(line)
            records.append(_in_brief(record) if record.kind in brief else record)
            offset = end + 1
        rest = content[offset:]
        if not _is_torn(rest, offset, self._sequence, ends=False):
            found = f"the byte {rest[_whole_size(rest)]:#04x}"
            raise JournalDamagedError(self.path, len(records) + 1, "the end of a record", found)
        return records, offset

    def _check(self, record: Record, number: int) -> None:
        if record.sequence != self._sequence or record.previous != self._previous:
            raise JournalDamagedError(
                self.path,
                number,
                f"sequence {self._sequence} after {self._previous}",
                f"{record.sequence} after {record.previous}",
            )
        version = record.payload.get("version", VERSION)
        if not isinstance(version, int) or version > VERSION:
            raise JournalTooNewError(self.path, version if isinstance(version, int) else -1, VERSION)

    def _advance(self, line: bytes) -> None:
        """Go on behind a record, of which this is the line without its end."""
        self._sequence += 1
        self._previous = checksum(line)

    def append(self, txid: str, kind: RecordKind, payload: dict[str, Any]) -> None:
        """Write one record and make it durable."""
        if kind is RecordKind.BEGIN:
            payload = {**payload, "version": VERSION}
        record = Record(sequence=self._sequence, txid=txid, kind=kind, payload=payload, previous=self._previous)
        line = encode(record)
        try:
            self.disk.append(self.path, line)
            if not self._exists:
                self.disk.sync_directory(self.path.rpartition("/")[0])
        except OSError:
            self._cut_back()
            raise
        self._exists = True
        self._size += len(line)
        self._advance(line[:-1])

    def _cut_back(self) -> None:
        """Take away a record that was refused but may have reached the file: the next one would not fit behind it."""
        entry = self.disk.find(self.path)
        if entry is not None and entry.size > self._size:
            self.disk.truncate(self.path, self._size)

    def archive(self, name: str) -> None:
        """Move the journal aside under a name in its folder that is not in use; it must have no open transaction.

        Durable with the first record that is written after it, which makes the name of the new journal durable.
        """
        if self._exists:
            self.disk.rename(self.path, name)
        self._forget()

    def restore(self, name: str) -> None:
        """Make a journal that was archived the present one again, durably; there must be no present one."""
        self.disk.rename(name, self.path)
        self.disk.sync_directory(self.path.rpartition("/")[0])
        self._forget()

    def discard(self) -> None:
        """Delete a journal without open transactions, durably."""
        if self._exists:
            # What its last transaction left in the folder must be gone for good before nobody knows of it any more.
            self.disk.sync_directory(self.path.rpartition("/")[0])
            self.disk.remove(self.path)
            self.disk.sync_directory(self.path.rpartition("/")[0])
        self._forget()

    def _forget(self) -> None:
        self._sequence, self._previous, self._exists, self._size = 0, NO_PREVIOUS, False, 0
