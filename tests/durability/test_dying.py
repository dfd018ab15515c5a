"""Nothing that a disk can be asked to do is left out where the program is to die before it."""

from __future__ import annotations

from tests.support.dying import VERBS
from upgradeconverter.disk.port import Disk

LOOKS = {
    "clock",
    "domain",
    "entries",
    "find",
    "is_immutable",
    "is_open",
    "lived_in",
    "manifest",
    "mounts",
    "part",
    "read",
    "same_content",
    "sha256",
    "silent",
    "space",
    "survey",
    "tail",
    "used_by",
    "vault_state",
}


def test_every_verb_looks_or_is_died_before() -> None:
    """Each verb of the port is known to only look, or the program can die before it."""
    verbs = {name for name, member in vars(Disk).items() if callable(member) and not name.startswith("_")}
    assert verbs == LOOKS | set(VERBS)
