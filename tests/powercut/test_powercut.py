"""A small sample of `make powercut`: no state is bad, and what is known to be wrong is seen to be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.powercut.stories import CONTROLS, PLACES, REPOSITORY, stories
from tests.powercut.sweep import FIXTURES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.slow]

STATES = 500
SEED = 20201


def _sweep(scratch: Path, *words: str) -> tuple[str, dict[str, Any]]:
    """Start the command as `make powercut` does; returns what it said and its evidence."""
    evidence = scratch / "powercut.json"
    command = [sys.executable, "-m", "tests.powercut.sweep", "--seed", str(SEED), "--jobs", "1"]
    # Measuring coverage of processes that are killed on purpose leaves damaged files.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [*command, "--evidence", str(evidence), "--keep", str(scratch / "bad"), *words],
        check=False,
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert evidence.exists(), done.stdout + done.stderr
    return f"exit status {done.returncode}\n{done.stdout}{done.stderr}", json.loads(evidence.read_text(encoding="utf-8"))


def test_no_state_is_bad(tmp_path: Path) -> None:
    """On each file system, whatever a power cut leaves, nothing is lost and the next start ends well."""
    said, evidence = _sweep(tmp_path, "--states", str(STATES))
    assert evidence["distinct_states"] >= STATES, said
    assert set(evidence["by_file_system"]) == set(PLACES), said
    assert set(evidence["by_story"]) == {story.name for story in stories(FIXTURES[0])}, said
    assert evidence["depth_2_states"] > 0, said
    assert evidence["bad"] == 0, said


def test_known_mistakes_are_caught(tmp_path: Path) -> None:
    """Each control has bad states."""
    said, evidence = _sweep(tmp_path, "--only-controls")
    assert {name for name, seen in evidence["controls"].items() if seen["caught"]} == set(CONTROLS), said
