"""A start with nothing to do imports next to nothing; the set of modules is pinned."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.cases import disk_of, load_cases
from tests.support.running import run

if TYPE_CHECKING:
    from pathlib import Path

ALLOWED = {"upgradeconverter", "upgradeconverter.preflight"}

PROGRAM = """
import sys
before = set(sys.modules)
sys.argv = ["upgradeconverter", *sys.argv[1:]]
import runpy
known = set(sys.modules)
try:
    from upgradeconverter.__main__ import main
    main()
except SystemExit as done:
    print("status", done.code)
print("modules", *sorted(set(sys.modules) - known - {"upgradeconverter.__main__"}))
"""


@pytest.mark.root
def test_nothing_to_do_imports_only_the_preflight(tmp_path: Path) -> None:
    """After a conversion the next start leaves early and has imported nothing but the preflight."""
    case = next(case for case in load_cases("eve") if case.name == "vm_qcow2_basic")
    with disk_of(case, tmp_path, "plain") as top:
        assert run("-p", top, "--target", "latest")[0] == 0
        command = [sys.executable, "-c", PROGRAM, "-p", top, "--target", "latest"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["nothing to do", "status 0"]
    assert set(lines[2].split()[1:]) == ALLOWED


@pytest.mark.root
@pytest.mark.parametrize("trap", ["img", "leftover", "stamp", "other target"])
def test_a_tripwire_forbids_the_early_exit(trap: str, tmp_path: Path) -> None:
    """A new legacy file, a working folder, a damaged stamp or another target each lead to the full program."""
    case = next(case for case in load_cases("eve") if case.name == "vm_qcow2_basic")
    with disk_of(case, tmp_path, "plain") as top:
        run("-p", top, "--target", "latest")
        target = "latest"
        if trap == "img":
            (tmp_path / "persist/img/new").write_bytes(b"")
        elif trap == "leftover":
            (tmp_path / "persist/.upgradeconverter/trash").mkdir()
        elif trap == "stamp":
            stamp = tmp_path / "persist/.upgradeconverter/stamp"
            stamp.write_bytes(stamp.read_bytes()[:-5])
        else:
            target = "5.7.1"
        command = [sys.executable, "-m", "upgradeconverter", "-p", top, "--target", target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout != "nothing to do\n"


def test_preflight_believes_nothing_without_a_stamp(tmp_path: Path) -> None:
    """A directory without a stamp, and one that does not exist, always mean the full program."""
    from upgradeconverter.preflight import nothing_to_do

    assert not nothing_to_do(str(tmp_path), "all", "", "eve", "")
    assert not nothing_to_do(str(tmp_path / "none"), "all", "", "eve", "")
