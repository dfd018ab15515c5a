"""A Python program converts through `calling`: it hears how it goes when something moves, and gets status and report."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.disktree import capture
from tests.support.olddisk import IMAGE, TARGETS, make_disk, write
from upgradeconverter.calling import Progress, confirm, convert

if TYPE_CHECKING:
    from pathlib import Path

LATEST = ("--target", "latest")


@pytest.fixture
def top(tmp_path: Path) -> str:
    """Return the old disk, with an image that takes a moment to copy."""
    top = make_disk(tmp_path / "persist")
    write(tmp_path / "persist" / IMAGE, os.urandom(1 << 20) * 32)
    return top


def test_conversion_is_told(top: str, tmp_path: Path) -> None:
    """A phase is carried out on trial, progress comes to the caller, and the old layout goes with the confirmation."""
    readings: list[Progress] = []
    result = convert("all", persist=top, on_progress=readings.append, report=str(tmp_path / "report"), words=LATEST)
    assert (result.status, result.report["outcome"], result.may_be_read) == (0, "done", True)
    assert readings
    assert readings[0].of_items > 0
    assert (tmp_path / "report/all.json").exists()
    assert os.path.exists(f"{top}/{IMAGE}")
    assert confirm(persist=top).status == 0
    assert not os.path.exists(f"{top}/{IMAGE}")
    assert all(os.path.exists(f"{top}/{target}") for target in TARGETS)


def test_nothing_to_do_feeds_nobody(top: str) -> None:
    """Where nothing moves, nobody is called."""
    assert convert("all", persist=top, trial=False, words=LATEST).status == 0
    readings: list[Progress] = []
    result = convert("all", persist=top, trial=False, on_progress=readings.append, words=LATEST)
    assert (result.status, result.report["outcome"], readings) == (0, "nothing-to-do", [])


def test_refusal_is_an_answer(tmp_path: Path) -> None:
    """What is refused comes as status and report, not as an exception."""
    result = convert("all", persist=str(tmp_path / "none"))
    assert (result.status, result.report["error"]["code"], result.may_be_read) == (3, "RootMissing", False)


def test_caller_that_raises_stops_it(top: str) -> None:
    """What the caller raises comes out again, after the conversion has ended politely; the next one goes on."""

    def give_up(_: Progress) -> None:
        message = "enough"
        raise KeyboardInterrupt(message)

    before = capture(top)
    with pytest.raises(KeyboardInterrupt, match="enough"):
        convert("all", persist=top, on_progress=give_up, words=LATEST)
    assert set(before) <= set(capture(top)) | {""}
    assert convert("all", persist=top, words=LATEST).status == 0
