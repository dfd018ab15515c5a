"""The ledger: an append-only history of all runs, one JSON line each, chained by digest. Never read to decide anything."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from upgradeconverter.engine.places import ENGINE_FOLDER, LEDGER
from upgradeconverter.model.plan import canonical

if TYPE_CHECKING:
    from upgradeconverter.disk.port import Disk

_LIMIT = 1 << 30


def read_ledger(disk: Disk) -> tuple[dict[str, Any], ...]:
    """Return every run, oldest first; lines that are not whole are left out."""
    if disk.find(LEDGER) is None:
        return ()
    runs = []
    for line in disk.read(LEDGER, _LIMIT).splitlines():
        try:
            runs.append(json.loads(line))
        except ValueError:
            continue
    return tuple(run for run in runs if isinstance(run, dict))


def add_run(disk: Disk, run: dict[str, Any]) -> None:
    """Append one run durably, with the digest of the line before it."""
    previous = "0" * 64
    torn = b""
    if disk.find(LEDGER) is not None:
        content = disk.read(LEDGER, _LIMIT)
        lines = content.splitlines()
        if lines:
            previous = hashlib.sha256(lines[-1]).hexdigest()
        torn = b"" if content.endswith(b"\n") or not content else b"\n"
    known = disk.find(LEDGER) is not None
    disk.append(LEDGER, torn + canonical({**run, "previous": previous}) + b"\n")
    if not known:
        disk.sync_directory(ENGINE_FOLDER)
