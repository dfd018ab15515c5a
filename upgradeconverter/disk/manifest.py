"""Lists of what lies in a file or tree, with a checksum of the content, to compare copies by."""

from __future__ import annotations

import errno
import json
import os
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upgradeconverter.model.entry import Kind

CHUNK = 1 << 20
_ZEROS = bytes(CHUNK)
_quoted = json.encoder.encode_basestring_ascii


def line(*, kind: Kind, size: int, mode: int, crc: int, depth: int, name: str) -> str:
    """Return one line: kind, size, mode in octal, CRC-32 of the content, depth, name as a JSON string.

    What lies in a directory follows it one deeper. Whole paths would take the square of what a deep tree has names.
    """
    return f"{kind.value.split()[0]} {size} {mode:04o} {crc:08x} {depth} {_quoted(name)}\n"


def content_digest(manifest: str) -> str:
    """Return one digest for a whole manifest, `manifest:` and a SHA-256; over everything but the mode of the top itself."""
    import hashlib

    kind, size, _, rest = manifest.split(" ", 3)
    return f"manifest:{hashlib.sha256(f'{kind} {size} {rest}'.encode('utf-8', 'surrogateescape')).hexdigest()}"


def add_chunk(crc: int, index: int, chunk: bytes | memoryview) -> int:
    """Fold one aligned chunk of a file into its checksum.

    A chunk of nothing but zeros does not count, so a hole and written zeros have the same checksum and holes need not be read.
    """
    # The first byte tells most of them apart.
    if not (chunk and chunk[0]) and chunk == _ZEROS[: len(chunk)]:
        return crc
    return zlib.crc32(chunk, zlib.crc32(index.to_bytes(8, "little"), crc))


def file_crc(fd: int, size: int) -> int:
    """Return the checksum of an open file, reading only its data."""
    crc = 0
    for index in data_chunks(fd, size):
        crc = add_chunk(crc, index, os.pread(fd, CHUNK, index * CHUNK))
    return crc


def data_chunks(fd: int, size: int) -> list[int]:
    """Return the numbers of the aligned chunks of an open file that hold data (lseek(2), SEEK_DATA and SEEK_HOLE)."""
    found: list[int] = []
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                # What a disk cannot tell is no hole: taken for one, it would be missing in the copy.
                raise
            break
        end = os.lseek(fd, start, os.SEEK_HOLE)
        first = max(start // CHUNK, found[-1] + 1 if found else 0)
        found.extend(range(first, -(-end // CHUNK)))
        position = end
    return found
