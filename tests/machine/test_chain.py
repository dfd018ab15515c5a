"""Where a machine is by its console, and what is left of its disk, without a machine."""

from __future__ import annotations

import os
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.machine.chain import ChainSeen, CutSeen, choose_survivor
from tests.machine.guest import MOMENTS, moment_after, qemu_words
from tests.machine.image import Machine
from tests.machine.sweep import Tally
from tests.powercut.recorder import Flush, Write
from tests.powercut.survivors import Replay

if TYPE_CHECKING:
    from pathlib import Path

    from tests.powercut.recorder import Event

BLOCK = 4096
CONSOLE = (
    "[    0.1] Linux",
    "         Starting upgradeconverter-pre-vault.service...",
    "[    7.9] upgradeconverter[107]: run-started run=4f phase=pre-vault steps=3",
    "[  OK  ] Finished upgradeconverter-pre-vault.service.",
    "         Starting unlock-vault.service...",
    "         Starting upgradeconverter-post-vault.service...",
    "[    9.9] upgradeconverter[107]: run-started run=4f phase=post-vault steps=9",
    "[FAILED] Failed to start upgradeconverter-post-vault.service.",
    "         Starting upgradeconverter-confirm.service...",
    "[  OK  ] Finished upgradeconverter-confirm.service.",
)


def test_moments_by_the_console() -> None:
    """Each moment at which a machine may be cut is seen, in its order."""
    moments = ["kernel"]
    for line in CONSOLE:
        moment = moment_after(line, moments[-1])
        moments += [moment] if moment != moments[-1] else []
    assert tuple(moments) == MOMENTS


def test_everything_that_reaches_the_data_disk_is_written_down() -> None:
    """The data disk is behind the recorder, and nothing else can be written to."""
    words = qemu_words(Machine("kernel", "memory", "root", "6.1"), "disk", "log", ("upgradeconverter=off",))
    assert "driver=blklogwrites,node-name=recorded,file=data,log=log" in words
    assert "driver=file,node-name=root,filename=root,read-only=on" in words
    assert words[words.index("-append") + 1].endswith(" upgradeconverter=off")


def _replay(folder: Path, pending: int) -> Replay:
    base = folder / "base"
    base.write_bytes(bytes(16 * BLOCK))
    os.makedirs(folder / "now")
    events: list[Event] = [
        Write(0, 0, b"a" * BLOCK),
        Flush(0),
        *(Write(0, number * BLOCK, b"b" * BLOCK) for number in range(1, pending + 1)),
    ]
    replay = Replay([str(base)], events, str(folder / "now"))
    replay.go_to(len(events))
    return replay


@pytest.mark.parametrize("pending", [0, 1, 9])
def test_what_was_flushed_survives_and_the_rest_is_chosen(tmp_path: Path, pending: int) -> None:
    """Over many seeds all forms come, and nothing is chosen but what was under way."""
    replay = _replay(tmp_path, pending)
    found = [choose_survivor(replay, Random(seed)) for seed in range(200)]  # noqa: S311 - choices that can be repeated
    assert all(set(each.chosen) <= set(replay.under_way) for each in found)
    assert {each.form for each in found} == ({"flush"} if not pending else {"whole", "prefix", "subset", "torn"})
    for each in found[:20]:
        replay.make(each, [str(tmp_path / "image")])
        assert (tmp_path / "image").read_bytes()[:BLOCK] == b"a" * BLOCK


def test_the_same_seed_chooses_the_same(tmp_path: Path) -> None:
    """A state can be made again."""
    replay = _replay(tmp_path, 9)
    one, two = ([choose_survivor(replay, Random(seed)) for seed in range(20)] for _ in range(2))  # noqa: S311 - as above
    assert one == two


def test_tally_counts_cuts_and_keeps_what_is_bad() -> None:
    """A chain with problems is bad once, however many it has."""
    tally = Tally()
    tally.add(ChainSeen(0, boots=3, cuts=[CutSeen("confirm", "done", "torn"), CutSeen("kernel", "done", "whole")], others=4))
    tally.add(ChainSeen(1, boots=1, problems=["D1: gone", "e2fsck: bad"], kept="folder"))
    evidence = tally.evidence()
    assert (evidence["cuts"], evidence["boots"], evidence["states_examined"], evidence["bad"]) == (2, 4, 6, 1)
    assert evidence["cuts_by_record"] == {"done": 2}
    assert evidence["chains_by_cuts"] == {"0": 1, "2": 1}
