"""One record of the journal: kinds and framing.

A record is a line: the first 16 hexadecimal digits of the SHA-256 of the rest, a blank, canonical JSON with the keys `kind`,
`payload`, `previous`, `sequence`, `txid`, and a newline. It can be read with `less` in a rescue shell.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Any

from msgspec import Struct

from upgradeconverter.model.plan import canonical

VERSION = 1
NO_PREVIOUS = "0" * 16
_SUM = 16


class RecordKind(StrEnum):
    """What a record says; see the invariants of the package."""

    BEGIN = "begin"
    STAGED = "staged"
    PIECE = "piece"
    COMMITTED = "committed"
    CONFIRMED = "confirmed"
    DONE = "done"
    UNDO = "undo"
    ABORTED = "aborted"


EVERY_KIND = frozenset(RecordKind)


class Record(Struct, frozen=True, kw_only=True):
    """One line of the journal, decoded."""

    sequence: int
    txid: str
    kind: RecordKind
    payload: dict[str, Any]
    previous: str


class FramingError(Exception):
    """A line is not a whole, unaltered record; the message says what is wrong."""


def checksum(body: bytes) -> str:
    """Return the checksum of a record's body, in the form that the line carries."""
    return hashlib.sha256(body).hexdigest()[:_SUM]


def encode(record: Record) -> bytes:
    """Return a record as a line."""
    body = canonical(
        {
            "kind": record.kind,
            "payload": record.payload,
            "previous": record.previous,
            "sequence": record.sequence,
            "txid": record.txid,
        },
    )
    return checksum(body).encode("ascii") + b" " + body + b"\n"


def decode(line: bytes) -> Record:
    """Read a line (without its newline) back; FramingError when it is damaged or not a record."""
    body = line[_SUM + 1 :]
    if line[_SUM : _SUM + 1] != b" " or checksum(body).encode("ascii") != line[:_SUM]:
        message = "a line whose checksum does not fit"
        raise FramingError(message)
    try:
        data = json.loads(body)
        return Record(
            sequence=int(data["sequence"]),
            txid=str(data["txid"]),
            kind=RecordKind(data["kind"]),
            payload=dict(data["payload"]),
            previous=str(data["previous"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        message = "a line that is no record"
        raise FramingError(message) from error
