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
_FIRST = "0" * 64


def read_ledger(disk: Disk) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """Return every run, oldest first, and what is wrong with the chain, one sentence each."""
    runs: list[dict[str, Any]] = []
    problems: list[str] = []
    previous = _FIRST
    for number, line in enumerate(_lines(disk), start=1):
        run = _run_of(line)
        if run is None:
            problems.append(f"{LEDGER} line {number}: expected a run, found something that is not whole")
        else:
            runs.append(run)
            if run.get("previous") != previous:
                problems.append(f"{LEDGER} line {number}: does not follow the line before it; lines were altered or are missing")
        previous = hashlib.sha256(line).hexdigest()
    return tuple(runs), tuple(problems)


def _lines(disk: Disk) -> list[bytes]:
    return disk.read(LEDGER, _LIMIT).split(b"\n")[:-1] if disk.find(LEDGER) is not None else []


def _run_of(line: bytes) -> dict[str, Any] | None:
    try:
        run = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return run if isinstance(run, dict) else None


def add_run(disk: Disk, run: dict[str, Any]) -> None:
    """Append one run durably, with the digest of the line before it."""
    known = disk.find(LEDGER) is not None
    content = disk.read(LEDGER, _LIMIT) if known else b""
    # A line that a power cut left without its end stays, and counts as one.
    torn = b"" if content.endswith(b"\n") or not content else b"\n"
    lines = (content + torn).split(b"\n")[:-1]
    previous = hashlib.sha256(lines[-1]).hexdigest() if lines else _FIRST
    disk.append(LEDGER, torn + canonical({**run, "previous": previous}) + b"\n")
    if not known:
        disk.sync_directory(ENGINE_FOLDER)
