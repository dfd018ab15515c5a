"""Every fixture as a trial: the old layout stays whole beside the new one; confirmed it is the run, taken back it never was.

With each kind of vault that is no plain directory a sample of the fixtures, since such disks take long to make.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cases import PACKS, Case, disk_of, load_cases
from tests.support.disktree import Tree, capture, diff, timeless
from tests.support.running import run

if TYPE_CHECKING:
    from pathlib import Path

SEED = 20203
SAMPLE = 10
# All that goes to the vault of this one fails its digest, so that nothing comes there.
ALWAYS = "verified_basic"
OWN = "user.upgradeconverter."
# What is one file under both names has the attributes that the new layout wants, under the old name too.
SHARED = ("mode", "owner", "xattrs")

# Those that are about a trial already say themselves what comes of it.
CASES = [
    (pack, case)
    for pack in PACKS
    for case in load_cases(pack)
    if not any("--trial" in words for words in case.options["starts"]) and not case.options["annexes"]
]


def _sampled() -> list[Any]:
    """Return all fixtures with a plain vault, and some with each other kind."""
    chosen = []
    for vault in ("plain", "fscrypt", "otherfs"):
        able = [(pack, case) for pack, case in CASES if vault in case.options["vaults"]]
        if vault != "plain":
            always = [each for each in able if each[1].name == ALWAYS]
            others = [each for each in able if each not in always]
            draw = random.Random(f"{SEED} {vault}")  # noqa: S311 - a choice that can be repeated
            able = always + draw.sample(others, min(SAMPLE, len(others)))
        chosen += [pytest.param(case, vault, id=f"{pack}-{case.name}-{vault}") for pack, case in able]
    return chosen


def _try(case: Case, top: str) -> list[dict[str, Any]]:
    return [run("--trial", *arguments)[1] for arguments in case.starts(top)]


def _golden(case: Case, vault: str) -> str:
    """Return what the fixture says that a run changes, without the lines on how it ends."""
    own = case.folder / f"expect.{vault}.diff"
    text = os.fsdecode((own if own.exists() else case.folder / "expect.diff").read_bytes())
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("# "))


def _under_one_name(tree: Tree) -> Tree:
    """Return a tree in which every name of a file shows the file itself."""
    shown = {path: {**tree[entry["link"]], **entry} if "link" in entry else entry for path, entry in tree.items()}
    return {path: {name: value for name, value in entry.items() if name != "link"} for path, entry in shown.items()}


def _old_as_it_was(case: Case, before: Tree, now: Tree, shared: set[str]) -> str:
    """Return how what was there before differs now.

    The attributes of files that have a second name now may, and so may the times of folders that hold new names.
    """
    old = _under_one_name(case.at_rest(before))
    new = {path: entry for path, entry in _under_one_name(case.at_rest(now)).items() if path in old}
    free = dict.fromkeys(shared, SHARED) | {path.rpartition("/")[0]: ("mtime", "atime") for path in now.keys() - old.keys()}
    for path, names in free.items():
        for tree in (old, new):
            if path in tree:
                tree[path] = {name: value for name, value in tree[path].items() if name not in names}
    return diff(old, new)


def _waiting(documents: list[dict[str, Any]], top: str) -> tuple[set[str], set[str]]:
    """Return what waits under a second name of the same file, and all new names that have come."""
    items = [item for document in documents for item in document["items"] if item["status"] == "waiting" and item["source"]]
    new = {item["target"] for item in items if item["operation"] == "Move"}
    linked = {item["source"] for item in items if _is_one(top, item["source"], item["target"] or item["source"])}
    return linked, new


def _made_way(documents: list[dict[str, Any]], prefix: str) -> set[str]:
    """Return what had to make way, for only a rollback gives it back; each ends in a slash."""
    items = (item for document in documents for item in document["items"] if item["transfer"] == "displace")
    return {f"{prefix}{item['source']}/" for item in items}


def _is_one(top: str, one: str, other: str) -> bool:
    places = f"{top}/{one}", f"{top}/{other}"
    return one != other and all(map(os.path.lexists, places)) and os.path.samestat(*map(os.lstat, places))


@pytest.mark.root
@pytest.mark.parametrize(("case", "vault"), _sampled())
def test_trial_confirmed(case: Case, vault: str, tmp_path: Path) -> None:
    """Old and new names are there together; confirming gives what a run gives, once, and that can be taken back."""
    with disk_of(case, tmp_path, vault) as top:
        before, started = capture(top), time.time_ns()
        documents = _try(case, top)
        tried = capture(top)
        linked, new = _waiting(documents, case.root(top))
        prefix = f"{case.options['root']}/" if case.options["root"] else ""
        assert {f"{prefix}{path}" for path in new} <= tried.keys()
        gone = _made_way(documents, prefix)
        kept = {path: entry for path, entry in before.items() if not any(f"{path}/".startswith(each) for each in gone)}
        assert _old_as_it_was(case, kept, tried, {f"{prefix}{path}" for path in linked}) == ""

        _try(case, top)
        assert case.at_rest(capture(top)) == case.at_rest(tried), "a second trial changed something"

        run(*case.asked(top, "confirm"))
        confirmed = capture(top)
        run(*case.asked(top, "confirm"))
        assert case.at_rest(capture(top)) == case.at_rest(confirmed), "a second confirmation changed something"

        # What fails the digest in its name is set aside by the first start after the trial, which is a run of its own.
        later = [run(*arguments)[1] for arguments in case.starts(top)]
        found = diff(case.at_rest(before), case.at_rest(capture(top)))
        assert timeless(found, started) == _golden(case, vault)

        if not any(document["outcome"] == "done" for document in later):
            run(*case.asked(top, "rollback"))
            assert diff(case.at_rest(before), case.at_rest(capture(top))) == "", "going back did not give what was"


@pytest.mark.root
@pytest.mark.parametrize(("case", "vault"), _sampled())
def test_trial_taken_back(case: Case, vault: str, tmp_path: Path) -> None:
    """A trial that is taken back before it is confirmed never was, to the nanosecond."""
    with disk_of(case, tmp_path, vault) as top:
        before = capture(top)
        _try(case, top)
        run(*case.asked(top, "rollback"))
        assert diff(case.at_rest(before), case.at_rest(capture(top))) == ""
