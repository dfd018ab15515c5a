"""What the documents and the help say is what the program does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from upgradeconverter.engine.states import TRANSITIONS
from upgradeconverter.errors import EXIT_STATUSES
from upgradeconverter.model.outcome import CATALOGUE

ROOT = Path(__file__).parent.parent.parent


def test_readme_exit_statuses() -> None:
    """The README lists every exit status with its text, and no other."""
    rows = re.findall(r"^\| ([0-9]+) \| ([^|]+) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [(int(status), text) for status, text in rows] == list(EXIT_STATUSES.items())


def test_readme_reasons() -> None:
    """The README lists every reason with its sentence and next step, and no other."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z][A-Za-z]+)` \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    assert rows == [(reason.value, *sentences) for reason, sentences in CATALOGUE.items()]


def test_durability_states() -> None:
    """The state diagram has every move of the table, and no other."""
    text = (ROOT / "docs" / "durability.md").read_text(encoding="utf-8")
    _, diagram, _ = re.split(r"<!-- /?states -->", text)
    drawn = re.findall(r"^    (\w+) --> (\w+): (\w+)$", diagram, re.MULTILINE)
    assert sorted(drawn) == sorted((source.name, target.name, trigger) for trigger, source, target in TRANSITIONS)


def test_help_lists_exit_statuses() -> None:
    """`--help` says what every exit status means."""
    shown = subprocess.run(
        (sys.executable, "-m", "upgradeconverter", "--help"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert [f"  {status}  {text}" for status, text in EXIT_STATUSES.items() if f"  {status}  {text}" not in lines] == []
