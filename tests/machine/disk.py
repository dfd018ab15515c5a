"""The data disk of the machine: an old EVE device in a folder of one ext4, with a vault that is behind a key.

It is the fixture of a whole device, with more content, so that there is something under way when the power goes. The folder is
the machine's `/persist`; beside it nothing may ever appear. What the host does with such a disk is what `tests/powercut` does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from tests.powercut.oracle import _facts, moves_of
from tests.powercut.stories import EXT4, TARGET, Place, Story
from tests.support.cases import Case, load_cases

if TYPE_CHECKING:
    from tests.support.disktree import Tree

FIXTURE = "sample_device"
# Nobody else works on this disk, so nothing but the words of the kernel command line has to name the layout.
WORDS = ("upgradeconverter.target=latest",)
_MORE = 1_000_000
_LEAST = 500
_GROWING = ("img/", "runx/", "containerd/")

PLACE = Place("ext4 with an encrypted vault", (replace(EXT4, size=64 << 20),), encrypted=True)


class Grown(Case):
    """A fixture whose volumes, containers and store have more content."""

    @property
    def tree(self) -> Tree:
        """The disk before the run."""
        return {path: _grown(entry) if path.startswith(_GROWING) else entry for path, entry in super().tree.items()}


def _grown(entry: dict[str, object]) -> dict[str, object]:
    """Return a file with so much more at its end; small files stay, since they say something."""
    size = entry.get("size", 0)
    if not isinstance(size, int) or size < _LEAST or "blobs" in str(entry["path"]):  # a blob has the digest in its name
        return entry
    data = entry["data"]
    assert isinstance(data, list)
    seed = hashlib.sha256(str(entry["path"]).encode()).hexdigest()[:12]
    return {**entry, "data": [*data, [size, "shake256", f"{seed}:{_MORE}"]], "size": size + _MORE}


@dataclass(frozen=True, slots=True)
class Life(Story):
    """What the units of the machine do, as words that the host can start the program with."""

    @property
    def case(self) -> Case:
        """The grown fixture."""
        return case()


@cache
def case() -> Case:
    """Return the grown fixture."""
    found = next(each for each in load_cases("eve") if each.name == FIXTURE)
    return Grown(found.folder, found.options)


def lists() -> dict[str, str]:
    """Return what the test units inside the machine know of the disk: what moves where, and the content of each old file."""
    contents = {path: fact["content"] for path, fact in _facts(case().tree).items() if "content" in fact}
    return {
        "moves": "".join(f"{old}\t{new}\n" for old, new in moves_of(case())),
        "sums": "".join(f"{content}  {path}\n" for path, content in contents.items()),
    }


_PHASES = tuple((phase, "--trial", "--pack", "eve", *TARGET) for phase in ("pre-vault", "post-vault"))
LIFE = Life("boot until confirmed", f"eve/{FIXTURE}", (*_PHASES, ("confirm", "--pack", "eve", *TARGET)))
