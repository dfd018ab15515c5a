"""The report for a person at a terminal, in colour; needs the optional `rich`, and is the plain text without it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from upgradeconverter.engine.report import as_text

if TYPE_CHECKING:
    from upgradeconverter.engine.report import Report

_STYLES = {
    "done": "green",
    "planned": "cyan",
    "quarantined": "yellow",
    "left": "yellow",
    "undone": "magenta",
    "left alone or set aside:": "yellow",
    "warning:": "yellow",
}


def shown(report: Report) -> bool:
    """Print the report in colour; False, and nothing printed, where there is no terminal or no `rich`."""
    if sys.stdout is None or sys.stdout.closed or not sys.stdout.isatty():
        return False
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        return False
    first, *rest = as_text(report).rstrip("\n").split("\n")
    text = Text()
    text.append(first, style="bold green" if report.exit_status == 0 else "bold red")
    for line in rest:
        word = next((word for word in _STYLES if line.lstrip().startswith(word)), "")
        is_error = report.error is not None and line.lstrip().startswith(report.error["code"])
        text.append("\n")
        text.append(line, style="red" if is_error else _STYLES.get(word, ""))
    try:
        Console(soft_wrap=True, highlight=False).print(text)
    except OSError:
        return False
    return True
