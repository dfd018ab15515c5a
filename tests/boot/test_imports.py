"""A start with nothing to do imports next to nothing; the set of modules is pinned."""

from __future__ import annotations

import json
import os
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


CASE = next(case for case in load_cases("eve") if case.name == "multi_drive_app")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "UPGRADECONVERTER_"))}


def _start(*arguments: str) -> tuple[list[str], set[str]]:
    """Start the program; returns what it said and which modules it imported."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    *said, modules = done.stdout.splitlines()
    return said, set(modules.split()[1:])


@pytest.mark.root
@pytest.mark.parametrize("phase", ["pre-vault", "post-vault", "all"])
def test_nothing_to_do_imports_only_the_preflight(phase: str, tmp_path: Path) -> None:
    """After a conversion the next start leaves early, has imported nothing but the preflight, and says what the program says."""
    with disk_of(CASE, tmp_path, "plain") as top:
        arguments = ("-p", top, "--target", "latest")
        assert run(*arguments)[1]["outcome"] == "done"
        for each in ("pre-vault", "post-vault", "all"):
            run(each, *arguments)
        as_text, as_json = _start(phase, *arguments), _start(phase, *arguments, "--output=json")
        assert (as_text[1], as_json[1]) == (ALLOWED, ALLOWED)
        status, document = run(phase, *arguments)
        (tmp_path / "persist/.upgradeconverter/stage").mkdir()
        full, modules = _start(phase, *arguments)
    assert modules > ALLOWED
    assert as_text[0] == full
    assert full[-1] == f"status {status}"
    found = json.loads(as_json[0][0])
    assert found == {**document, "run": None}


@pytest.mark.root
@pytest.mark.parametrize("trap", ["img", "leftover", "stamp", "other target", "strict"])
def test_a_tripwire_forbids_the_early_exit(trap: str, tmp_path: Path) -> None:
    """A new legacy file, a working folder, a damaged stamp, another target or option each lead to the full program."""
    with disk_of(CASE, tmp_path, "plain") as top:
        run("-p", top, "--target", "latest")
        arguments = ["-p", top, "--target", "latest"]
        if trap == "img":
            # What was emptied is gone; an older system makes it anew.
            (tmp_path / "persist/img").mkdir(exist_ok=True)
            (tmp_path / "persist/img/new").write_bytes(b"")
        elif trap == "leftover":
            (tmp_path / "persist/.upgradeconverter/trash").mkdir()
        elif trap == "stamp":
            stamp = tmp_path / "persist/.upgradeconverter/stamp"
            stamp.write_bytes(stamp.read_bytes()[:-5])
        elif trap == "strict":
            arguments.append("--strict")
        else:
            arguments[-1] = "5.7.1"
        assert _start(*arguments)[1] > ALLOWED


@pytest.mark.root
def test_what_may_pass_is_looked_at_again(tmp_path: Path) -> None:
    """After an item was left for want of space the next start looks again, and finds the space."""
    with disk_of(CASE, tmp_path, "plain") as top:
        os.makedirs(f"{top}/vault", exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", f"{top}/vault"], check=True)
        try:
            first = run("-p", top, "--target", "latest")[1]
            assert "NoSpace" in {skip["reason"] for skip in first["skipped"]}
            subprocess.run(["mount", "-o", "remount,size=64m", f"{top}/vault"], check=True)
            said, modules = _start("-p", top, "--target", "latest")
            assert modules > ALLOWED
            assert said[0] == "run all: done"
        finally:
            subprocess.run(["umount", "-l", f"{top}/vault"], check=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["pre-vault", "-p", "/x"], ("pre-vault", "/x", "", "text"), id="as EVE calls it"),
        pytest.param(["--persist=/x", "--output", "json"], ("all", "/x", "", "json"), id="both ways of giving a value"),
        pytest.param(["-p"], None, id="value missing"),
        pytest.param(["--persist="], None, id="value empty"),
        pytest.param(["-n"], None, id="dry run"),
        pytest.param(["verify"], None, id="command"),
    ],
)
def test_only_plain_invocations_may_leave_early(arguments: list[str], words: tuple[str, ...] | None) -> None:
    """Whatever is not a plain run is left to the full command line."""
    from upgradeconverter.__main__ import _words

    found = _words(arguments)
    assert (None if found is None else tuple(found.values())) == words


def test_preflight_believes_nothing_without_a_stamp(tmp_path: Path) -> None:
    """A directory without a stamp, and one that does not exist, always mean the full program."""
    from upgradeconverter.preflight import answer

    expected = {"pack": "eve", "asked": "", "release": "", "config": ""}
    assert answer(str(tmp_path), "all", expected, as_json=False) is None
    assert answer(str(tmp_path / "none"), "all", expected, as_json=True) is None
