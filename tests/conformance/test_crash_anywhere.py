"""Whatever a fixture holds, the program may die before anything that it does: the next start ends as if nothing had happened.

In a directory it dies before every effective verb, or before forty of them; where the disk is an image, which takes long to make,
before a few of each fixture. Odd deaths are followed by a rollback as well, which gives the untouched disk.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.support.cases import PACKS, Case, disk_of, load_cases
from tests.support.disktree import Tree, capture, diff
from tests.support.dying import dying
from tests.support.olddisk import unsynced
from tests.support.running import run

if TYPE_CHECKING:
    from pathlib import Path

SEED = 20201
DEATHS_ON_AN_IMAGE, DEATHS_IN_A_DIRECTORY = 3, 40
LEAST_FOR_A_CHANGE = 10
LATER_THAN_ANY_FIXTURE = 1_700_000_000_000_000_000

CASES = [(pack, case) for pack in PACKS for case in load_cases(pack)]
# Somebody who writes to the disk at each start gives each start another result.
OTHERS = ("restless", "interrupted", "meanwhile")
QUIET = [(pack, case) for pack, case in CASES if not any(case.options[other] for other in OTHERS)]
PLACES = [pytest.param(case, vault, id=f"{pack}-{case.name}-{vault}") for pack, case in QUIET for vault in case.options["vaults"]]


def _whole(case: Case, scratch: Path, vault: str) -> tuple[Tree, Tree, list[int], int]:
    """Return the disk before and after the starts of a case, their statuses, and how much they do."""
    with disk_of(case, scratch, vault) as top, dying() as done:
        before = capture(top)
        statuses = [run(*arguments)[0] for arguments in case.starts(top)]
        return before, capture(top), statuses, len(done)


def _die_and_go_on(case: Case, scratch: Path, vault: str, at: int, expected: tuple[Tree, Tree, list[int]]) -> None:
    before, after, statuses = expected
    with disk_of(case, scratch, vault) as top:
        with dying(at):
            for arguments in case.starts(top):
                run(*arguments)
        found = [run(*arguments)[0] for arguments in case.starts(top)]
        assert (found, diff(_settled(case, after), _settled(case, capture(top)))) == (statuses, ""), f"died before verb {at}"
        if at % 2:
            while run(*case.asked(top, "rollback"))[1]["error"] is None:
                # Each start that did something is a run of its own.
                continue
            assert diff(_settled(case, before), _settled(case, capture(top))) == "", f"died before verb {at}, rolled back"


def _settled(case: Case, tree: Tree) -> Tree:
    """Return a tree without times that tell when the program ran: those later than any in a fixture, and the root's own.

    Nobody knows the root's times any more after a death just when the engine's folder was made in it.
    """
    return {
        path: {n: v for n, v in entry.items() if n not in ("mtime", "atime") or entry["mtime"] < LATER_THAN_ANY_FIXTURE}
        for path, entry in tree.items()
        if path != case.options["root"]
    }


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize(("case", "vault"), PLACES)
def test_death_anywhere(case: Case, vault: str, tmp_path: Path) -> None:
    """Die, start again: the result is that of a start which nothing interrupted."""
    with unsynced():
        before, after, statuses, verbs = _whole(case, tmp_path / "whole", vault)
        deaths = list(range(verbs))
        on_image = vault != "plain" or case.options["fs_size"] or case.options["damaged"]
        most = DEATHS_ON_AN_IMAGE if on_image else DEATHS_IN_A_DIRECTORY
        deaths = random.Random(SEED).sample(deaths, min(most, verbs))  # noqa: S311 - a choice that can be repeated
        for at in deaths:
            _die_and_go_on(case, tmp_path / str(at), vault, at, (before, after, statuses))
    assert verbs >= LEAST_FOR_A_CHANGE or before == after
