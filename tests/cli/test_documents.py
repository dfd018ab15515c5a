"""What the documents and the help say is what the program does."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.olddisk import checked, write
from upgradeconverter.engine.states import TRANSITIONS
from upgradeconverter.errors import EXIT_DONE, EXIT_STATUSES
from upgradeconverter.journal.decide import Verdict, decide, presence
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.outcome import CATALOGUE
from upgradeconverter.model.plan import Shape

if TYPE_CHECKING:
    import pytest

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


def test_example_of_a_pack_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small pack in the guide is whole: its key moves to the safe."""
    text = (ROOT / "migrations" / "README.md").read_text(encoding="utf-8")
    code = re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert code is not None
    write(tmp_path / "packs/example/__init__.py", code[1].encode())
    write(tmp_path / "disk/keys/front.key", b"key")
    monkeypatch.setenv("UPGRADECONVERTER_PACK_ROOT", str(tmp_path / "packs"))
    # What it does not say that it writes it may not write.
    write(tmp_path / "packs/careless/__init__.py", code[1].replace("writes=(NEW,), ", "").encode())
    error = checked("-p", str(tmp_path / "disk"), "--pack", "careless")[1]["error"]
    assert (error["code"], "slot keys is not among those that it writes" in error["message"]) == ("PackDamaged", True)
    # It may not make anything of how a file begins that it cannot make of every file.
    probe = 'OLD = Slot(probe=lambda part: {b"?": 1}[part(0, 3)], '
    write(tmp_path / "packs/rash/__init__.py", code[1].replace("OLD = Slot(", probe).encode())
    assert checked("-p", str(tmp_path / "disk"), "--pack", "rash")[1]["error"]["code"] == "PackDamaged"
    assert checked("-p", str(tmp_path / "disk"), "--pack", "example")[0] == EXIT_DONE
    assert (tmp_path / "disk/safe/keys/front").read_bytes() == b"key"


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


def test_durability_table() -> None:
    """The recovery table on paper is the one that recovery goes by."""
    text = (ROOT / "docs" / "durability.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| (\w+) \| (\w+) \| (.+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    written = {
        (shape, last, who, verdict)
        for shape, last, *cells in found
        for verdict, cell in zip((Verdict.FORTH, Verdict.BACK, Verdict.ALONE), cells, strict=True)
        for who in re.findall(r"`([SGTX.]{4})`", cell)
    }
    words = [presence(source=s, staged=g, target=t, trash=x) for s, g, t, x in itertools.product((True, False), repeat=4)]
    known = {(s.value, last.value, who, decide(s, last, who)) for s in Shape for last in RecordKind for who in words}
    assert written == {row for row in known if row[3] is not Verdict.REFUSE}
