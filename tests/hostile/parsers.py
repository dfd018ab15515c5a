"""Everything that reads bytes which somebody else may have written, as functions of bytes, with examples to begin from.

Each function returns when the bytes were understood or refused in the words that belong to the reader, and raises otherwise.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from migrations.eve import PACK
from migrations.eve.checkpoint import read_checkpoint
from migrations.eve.latches import LATCH_FOLDERS, read_latches
from tests.packs.eve_words import container, documents
from tests.support.cases import FIXTURES
from tests.support.disktree import decode_extent, parse
from tests.support.olddisk import CONFIG
from upgradeconverter import settings
from upgradeconverter.engine import stamp
from upgradeconverter.errors import UpgradeConverterError
from upgradeconverter.journal import record
from upgradeconverter.journal.record import FramingError, RecordKind
from upgradeconverter.preflight import HEADER, checksum

if TYPE_CHECKING:
    from collections.abc import Callable


def checkpoint(content: bytes) -> None:
    """Read a saved configuration, and plan with it."""
    found = read_checkpoint(documents({"checkpoint/lastconfig": content, "checkpoint/lastconfig.bak": content[::-1]}))
    assert (found.content is None) == (found.problem is not None)


def latch(content: bytes) -> None:
    """Read a latch."""
    read_latches(documents({f"{folder}/x.json": content for folder in LATCH_FOLDERS}))


def journal_line(content: bytes) -> None:
    """Read a line of the journal, as it is and with a checksum that fits."""
    for line in (content, record.checksum(content).encode("ascii") + b" " + content):
        with suppress(FramingError):
            record.decode(line)


def stamp_file(content: bytes) -> None:
    """Read a stamp, as it is and with a checksum that fits."""
    body = HEADER.encode("ascii") + b"\n" + content
    for whole in (content, body + b"\nend " + checksum(body) + b"\n"):
        with suppress(UpgradeConverterError):
            stamp.decode(whole)


def settings_file(content: bytes) -> None:
    """Read a settings file, and its text as a kernel command line."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "file"
        place.write_bytes(content)
        with suppress(UpgradeConverterError):
            settings._from_file(str(place))
    with suppress(UpgradeConverterError):
        settings._from_command_line(content.decode("utf-8", "surrogateescape"))


def _of_fixtures(*words: str) -> tuple[bytes, ...]:
    """Return the files on the disks of the fixtures whose paths have one of some words in them."""
    found: dict[bytes, None] = {}
    for tree in FIXTURES.glob("*/*/before.tree"):
        for path, entry in parse(tree.read_text()).items():
            if entry["kind"] == "file" and any(word in path for word in words) and len(entry.get("data", ())) == 1:
                found[decode_extent(*entry["data"][0][1:])] = None
    return tuple(content for content in found if len(content) <= 1 << 14)


_RECORD = record.Record(sequence=1, txid="ab", kind=RecordKind.BEGIN, payload={"steps": []}, previous="")
_STAMP = stamp.Stamp(pack=PACK.name, layout="latest", run="ab")
_SETTINGS = b'target = "latest"\nread_back = "none"\n[agents.volumemgr]\nuid = 1001\ngid = 1001\n'

TARGETS: dict[str, tuple[Callable[[bytes], None], tuple[bytes, ...]]] = {
    "checkpoint": (checkpoint, (CONFIG, container(CONFIG), *_of_fixtures("checkpoint/"))),
    "latch": (latch, (b'{"AppUUID": "", "ImageID": "", "Hash": "", "PurgeCounter": 0}', *_of_fixtures("AndImageToHash"))),
    "journal": (journal_line, (record.encode(_RECORD)[:-1], record.encode(_RECORD).partition(b" ")[2][:-1])),
    "stamp": (stamp_file, (stamp.encode(_STAMP),)),
    "settings": (
        settings_file,
        (_SETTINGS, b"quiet upgradeconverter=dry-run upgradeconverter.target=latest", os.fsencode("\N{SNOWMAN}")),
    ),
}
