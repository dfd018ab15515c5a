"""Somebody else than root converts what is theirs: the demonstration on a workstation has to work for everybody."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.disktree import capture, diff
from tests.support.olddisk import make_disk

ROOT = Path(__file__).parent.parent.parent
NOBODY = 65534
# What is imported may lie where only root may look: one whole conversion as root has imported everything.
PROGRAM = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from upgradeconverter.cli.main import main
COMMANDS = ("plan", "--target latest", "verify --target latest", "rollback")
for command in COMMANDS:
    main([*command.split(), "-p", "other"])
os.setgid({NOBODY})
os.setuid({NOBODY})
sys.exit(max(main([*command.split(), "-p", "disk"]) for command in COMMANDS))
"""


@pytest.mark.root
def test_what_is_theirs() -> None:
    """Converted, verified and taken back without a word about owners that only root could set."""
    # The folder that pytest gives lies in one that others than root cannot enter.
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o711)  # noqa: S103 - others pass through
        make_disk(Path(scratch) / "other")
        top = make_disk(Path(scratch) / "disk")
        for where, folders, files in os.walk(top):
            for name in (".", *folders, *files):
                os.chown(os.path.join(where, name), NOBODY, NOBODY, follow_symlinks=False)
        before = capture(top)
        done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=scratch, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "not started as root" in done.stdout
        assert diff(before, capture(top)) == ""
