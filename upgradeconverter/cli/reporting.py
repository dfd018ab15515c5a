"""The last report of each phase, and its figures, where monitoring finds them (`--report`).

The report is the document of `--output json` without names that only the vault knows. The figures are in the text format of
Prometheus, for the textfile collector of its node exporter; they begin anew with each boot, as counters there may.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from upgradeconverter import __version__, log, preflight
from upgradeconverter.cli.arguments import PHASES
from upgradeconverter.cli.commands import ACTING
from upgradeconverter.disk import outside
from upgradeconverter.engine.report import pieces
from upgradeconverter.model.outcome import ItemStatus, Outcome

if TYPE_CHECKING:
    from upgradeconverter.engine.report import Report
    from upgradeconverter.preflight import Figure

_FOR_ROOT, _FOR_ALL = 0o600, 0o644
_CONVERTED = (ItemStatus.DONE.value, ItemStatus.WAITING.value)


def name_of(report: Report) -> str:
    """Return what the files of a report are called: its phase, of other commands the command."""
    if report.outcome is Outcome.USAGE and report.phase not in PHASES:
        return "all"
    return report.phase if report.command == "run" else report.command


def drop(report: Report, directory: str) -> bool:
    """Log a start that failed, and put report and figures there, and a mark that it has failed; False where that is refused.

    What cannot be replaced is removed if possible: an old report would say that all is well.
    """
    failed = report.exit_status != 0 and report.command in ACTING
    if failed:
        code = report.error["code"] if report.error is not None else ""
        fields = {"command": report.command, "phase": report.phase, "outcome": report.outcome.value, "code": code}
        log.event("start-failed", exit_status=report.exit_status, **fields)
    name = name_of(report)
    files = {
        f"{name}.json": ("".join(pieces(report.concealed())).encode() + b"\n", _FOR_ROOT),
        f"{name}.prom": (figures(report).encode(), _FOR_ALL),
        f"{name}.failed": (b"", _FOR_ALL) if failed else None,
    }
    return all([_put(directory, each, wanted) for each, wanted in files.items()])  # noqa: C419 - one that fails stops no other


def _put(directory: str, name: str, wanted: tuple[bytes, int] | None) -> bool:
    try:
        if wanted is None:
            outside.remove(directory, name)
        else:
            outside.put(directory, name, *wanted)
    except OSError:
        with suppress(OSError):
            outside.remove(directory, name)
        return False
    return True


def figures(report: Report) -> str:
    """Return the figures of a report as text."""
    items = Counter(item["status"] for item in report.items)
    left = Counter(skip["reason"] for skip in report.skipped)
    size = sum(item["size"] or 0 for item in report.items if item["status"] in _CONVERTED)
    seconds = (time.monotonic_ns() - report.started_ns) / 1e9
    rows: list[Figure] = [
        ("exit_status", "", str(report.exit_status)),
        ("start_info", f'outcome="{report.outcome.value}",version="{__version__}"', "1"),
        ("duration_seconds", "", f"{seconds:.3f}"),
        *(("items_total", f'status="{status}"', str(number)) for status, number in sorted(items.items())),
        ("converted_bytes_total", "", str(size)),
        *(("left_items", f'reason="{reason}"', str(number)) for reason, number in sorted(left.items())),
        ("recovered_transactions_total", "", str(len(report.recovered))),
    ]
    return preflight.figures_text(name_of(report), rows)


def summary(report: Report, directory: str, *, is_left: bool) -> str:
    """Return one line for the log of a boot, empty where there is nothing to tell."""
    if is_left and not (report.items or report.skipped or report.recovered or report.exit_status or report.warnings):
        return ""
    done = sum(item["status"] in _CONVERTED for item in report.items)
    told = f"{name_of(report)}: {report.outcome.value.replace('-', ' ')}, {done} of {len(report.items)} items"
    told += f", {len(report.skipped)} left alone" if report.skipped else ""
    told += f"; status {report.exit_status}, {report.error['code']}" if report.error is not None else ""
    place = f"{directory}/{name_of(report)}.json"
    return f"{told}; {place} has the report" if is_left else f"{told}; the report could not be left in {directory}"
