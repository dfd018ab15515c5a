"""A saved configuration of a gigabyte is refused by name, at once, and without being read into memory."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from tests.support.disktree import capture, diff
from tests.support.olddisk import CONFIG, IMAGE, checked, make_disk

GIBIBYTE = 1 << 30


@pytest.mark.parametrize("dense", [False, True], ids=["holes", "reserved"])
def test_gigabyte_of_configuration(tmp_path: Path, dense: bool) -> None:
    """Also where it begins like a real one, and the disk says that all of it is data, nothing of it is decoded."""
    top = Path(make_disk(tmp_path / "persist", CONFIG))
    for name in ("lastconfig", "lastconfig.bak"):
        with open(top / "checkpoint" / name, "wb") as stream:
            stream.write(CONFIG)
            if dense:
                os.posix_fallocate(stream.fileno(), 0, GIBIBYTE)
            stream.truncate(GIBIBYTE)
    os.truncate(top / "checkpoint/lastconfig", GIBIBYTE)
    before = capture(str(top / "img"))
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    status, document = checked("-p", str(top), "--target", "latest")
    assert time.monotonic() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100 << 10
    reasons = {skip["path"]: (skip["reason"], skip["detail"]) for skip in document["skipped"]}
    assert (status, reasons[IMAGE][0]) == (0, "CheckpointUnreadable")
    assert "lastconfig" in str(document["skipped"]) + str(document["warnings"])
    assert diff(before, capture(str(top / "img"))) == ""
