"""Colours are for people at a terminal who have the optional package; everybody else gets the same words without."""

from __future__ import annotations

import os
import pty
import re
import sys
from typing import TYPE_CHECKING

from upgradeconverter.cli import terminal
from upgradeconverter.engine.report import Report, as_text
from upgradeconverter.errors import VaultMissingError
from upgradeconverter.model.outcome import Outcome

if TYPE_CHECKING:
    import pytest


def _report() -> Report:
    report = Report(command="run", warnings=["[bold]a name in brackets[/bold]"])
    report.fail(VaultMissingError("vault"), Outcome.REFUSED)
    return report


def _on_terminal(monkeypatch: pytest.MonkeyPatch) -> tuple[bool, str]:
    """Show a report on a terminal; returns whether it was shown and what the terminal got."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        was_shown = terminal.shown(_report())
        stream.flush()
        got = os.read(reader, 1 << 16).decode() if was_shown else ""
    os.close(reader)
    return was_shown, got


def test_terminal_gets_the_same_words_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the words are those of the plain text, names in brackets included, and there is colour."""
    was_shown, got = _on_terminal(monkeypatch)
    assert was_shown
    assert "\x1b[" in got
    assert re.sub(r"\x1b\[[0-9;]*m", "", got).replace("\r\n", "\n") == as_text(_report())


def test_without_the_package_the_plain_text_is_left_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the optional package is missing nothing is printed here."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert _on_terminal(monkeypatch) == (False, "")


def test_no_colour_without_a_terminal() -> None:
    """A pipe or file gets the plain text."""
    assert not terminal.shown(_report())
