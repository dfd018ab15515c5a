"""Says what was found: as a table for people, and as JSON that keeps what other runs have found of other cases."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .figures import spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .figures import Found, Result

_REPOSITORY = Path(__file__).resolve().parents[1]
_MIB = 1 << 20
_CALLS = 12
_HEAD = (
    f"  {'way':<38} {'median s':>9} {'quartiles':>17} {'ratio':>7} {'largest':>8} {'all':>8} {'allocated':>10} {'calls per':>9}\n"
    f"  {'':<38} {'':>9} {'':>17} {'':>7} {'MiB':>8} {'MiB':>8} {'MiB':>10} {'file':>9}"
)
Document = dict[str, Any]


def table(result: Result) -> Iterator[str]:
    """Yield the lines of one result."""
    at = f", at scale {result.scale:g}" if result.scale != 1 else ""
    yield f"{result.case} on {result.ground}: {result.about}{at}"
    yield f"  {result.files} files, {result.size / _MIB:.1f} MiB; ratio: {result.ratio}; {result.cache}"
    yield _HEAD
    for found in result.found:
        yield _line(found)
        for remark in (found.problem(), found.about, _phases(found.phases)):
            if remark:
                yield f"      {remark}"


def _line(found: Found) -> str:
    seconds = [*found.seconds().values()]
    words = [f"{'-':>9}", f"{'':>17}"]
    if seconds:
        middle = spread(seconds)
        words = [f"{middle.median:>9.4f}", f"{middle.low:>8.4f} {middle.high:>8.4f}"]
    sizes = (f"{_mebibytes(found.most(what)):>{width}}" for what, width in (("largest", 8), ("together", 8), ("allocated", 10)))
    words += [f"{_number(found.ratio, 3):>7}", *sizes, f"{_number(found.calls_per_file, 1):>9}"]
    return f"  {found.name:<38} {' '.join(words)}"


def _phases(phases: dict[str, float] | None) -> str:
    """Return where the time of a run went, in order, without what took less than a hundredth of it."""
    worth = sum((phases or {}).values()) / 100
    return ", ".join(f"{name} {seconds:.3f} s" for name, seconds in (phases or {}).items() if seconds >= worth)


def _number(number: float | None, digits: int) -> str:
    return "-" if number is None else f"{number:.{digits}f}"


def _mebibytes(size: int | None) -> str:
    return _number(size / _MIB if size else None, 1)


def document_of(result: Result) -> Document:
    """Return one result as JSON has it, with where and when it was found."""
    return {
        "case": result.case,
        "about": result.about,
        "ground": result.ground,
        "ratio_is": result.ratio,
        "cache": result.cache,
        "scale": result.scale,
        "files": result.files,
        "bytes": result.size,
        "ways": {found.name: _way(found) for found in result.found},
        **surroundings(),
    }


def _way(found: Found) -> Document:
    seconds = [*found.seconds().values()]
    middle = spread(seconds) if seconds else None
    return {
        "seconds": [round(each, 4) for each in seconds],
        "median_seconds": round(middle.median, 4) if middle else None,
        "quartiles_seconds": [round(middle.low, 4), round(middle.high, 4)] if middle else None,
        "ratio": None if found.ratio is None else round(found.ratio, 4),
        "cpu_seconds": round(max((each.cpu for each in found.samples.values()), default=0.0), 4),
        "largest_process_bytes": found.most("largest"),
        "all_processes_bytes": found.most("together"),
        "allocated_bytes": found.most("allocated"),
        "calls_per_file": None if found.calls_per_file is None else round(found.calls_per_file, 2),
        "phases_seconds": None if found.phases is None else {name: round(each, 4) for name, each in found.phases.items()},
        "most_calls": dict([*(found.calls or {}).items()][:_CALLS]),
        "problem": found.problem(),
        "about": found.about,
    }


def surroundings() -> Document:
    """Return the machine, the day and the commit: times can be compared where these are the same."""
    words = ["git", "-C", str(_REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    commit = subprocess.run(words, check=False, capture_output=True, text=True).stdout.strip()
    return {
        "commit": commit or "unknown",
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }


def merged(earlier: list[Document], later: list[Document]) -> list[Document]:
    """Return all results, of each case on each ground the later one, in order."""
    by_place = {(each["case"], each["ground"]): each for each in (*earlier, *later)}
    return [by_place[place] for place in sorted(by_place)]


def read(place: Path) -> list[Document]:
    """Return what earlier runs have written, nothing where there is no file."""
    results: list[Document] = json.loads(place.read_text(encoding="utf-8"))["results"] if place.exists() else []
    return results


def write(place: Path, results: list[Document]) -> None:
    """Write all results."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"results": results}, indent=2) + "\n", encoding="utf-8")
