"""The fixtures as cases: builds the old disk, plain or with a real vault, and says how the program is started on it."""

from __future__ import annotations

import os
import tomllib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import trouble, vaults
from tests.support.disktree import Tree, build, parse
from upgradeconverter.packs.find import load as load_pack

if TYPE_CHECKING:
    from collections.abc import Iterator

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"

PACKS = ("eve", "rayos")

# All that `case.toml` may say, with what counts when it does not.
DEFAULTS: dict[str, Any] = {
    # How the program is started.
    "starts": [[]],  # one list of words for each start, one after the other; root and target are added
    "root": "",  # folder of the disk that -p names
    "target": "latest",  # layout that --target names; "" asks for none, so that the release or the pack decides
    "release": "",  # what the release file of the system says; "" for a system without one
    "umask": 0o022,
    # What the disk is.
    "vaults": ["plain", "fscrypt"],  # also "otherfs": the vault is another file system, not encrypted; a pack may have none
    "annexes": {},  # where on the disk each annex is, by its name
    "fs_size": "",  # size of the file system; "" for one that is large enough
    # What somebody else does to it; each names a path. See `trouble`.
    "immutable": "",
    "read_only": "",
    "mount_inside": "",
    "hold_open": "",
    "damaged": "",
    "lock_vault": False,
    "encrypted": "",  # path of a directory that a real vault has beside it, behind the same key
    "locked_directory": "",  # path of a directory with a key of its own, which is not there
    "restless": {},  # path, and the disk verb (`append` or `copy`) during which it is written to
    "meanwhile": [],  # paths that are written to after the first start, by whichever system knows them
    "interrupted": {},  # journal record before which an earlier start died, and the path that was written to after that
}


@dataclass(frozen=True, slots=True)
class Case:
    """One fixture folder; `options` are those of `case.toml` over `DEFAULTS`."""

    folder: Path
    options: dict[str, Any]

    @property
    def pack(self) -> str:
        """Name of the pack."""
        return self.folder.parent.name

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def tree(self) -> Tree:
        """The disk before the run."""
        return parse((self.folder / "before.tree").read_text())

    @property
    def outside(self) -> Tree:
        """What lies outside of the root, in a directory for each of the names that the pack has for such a place."""
        place = self.folder / "outside.tree"
        return parse(place.read_text()) if place.exists() else {}

    @property
    def vault(self) -> str:
        """Where the vault of the root lies on the disk."""
        return os.path.join(self.options["root"], "vault")

    def root(self, top: str) -> str:
        """Return the directory that the program works on, for a disk that was built in `top`."""
        return os.path.join(top, self.options["root"]).rstrip("/")

    def starts(self, top: str) -> list[tuple[str, ...]]:
        """Return the arguments of each start that the case is about."""
        target = ("--target", self.options["target"]) if self.options["target"] else ()
        places = [f"--outside={name}={_outside(top)}/{name}" for name in load_pack(self.pack).outside]
        places += [f"--annex={name}={top}/{path}" for name, path in self.options["annexes"].items()]
        return [(*self.asked(top, *words), *target, *places) for words in self.options["starts"]]

    def asked(self, top: str, *words: str) -> tuple[str, ...]:
        """Return the arguments of a start that says no more than these words."""
        return (*words, "-p", self.root(top), "--pack", self.pack)

    def meanwhile(self, top: str) -> None:
        """Write what somebody wrote between the first start and the second."""
        for path in self.options["meanwhile"]:
            trouble.write_anew(f"{self.root(top)}/{path}", f"written as {path}\n")

    def taken_back(self, before: Tree, after: Tree) -> Tree:
        """Return what a rollback gives: what was there before, with what had been written under the old names meanwhile."""
        written = ("data", "size", "mtime")
        return {
            path: entry | {name: after[path][name] for name in written if entry["kind"] == "file" and name in after[path]}
            for path, entry in before.items()
        }

    def at_rest(self, tree: Tree) -> Tree:
        """Return a tree without what no run can answer for.

        That is a file which somebody keeps writing to, and the times of folders that a run left which the power cut short.
        """
        unsteady: dict[str, tuple[str, ...]] = {}
        if self.options["restless"]:
            unsteady[self.options["restless"]["path"]] = ("data", "size", "mtime", "atime")
        if self.options["interrupted"]:
            unsteady |= {path: ("mtime", "atime") for path, entry in tree.items() if entry["kind"] == "directory"}
        return {p: {n: v for n, v in entry.items() if n not in unsteady.get(p, ())} for p, entry in tree.items()}


def load_cases(pack: str) -> list[Case]:
    """Return all cases of a pack, by name; ValueError for an option that nothing here knows."""
    found = []
    usual = DEFAULTS if load_pack(pack).vault is not None else {**DEFAULTS, "vaults": ["plain"]}
    for folder in sorted(place for place in (FIXTURES / pack).iterdir() if place.is_dir()):
        options = folder / "case.toml"
        said = tomllib.loads(options.read_text()) if options.exists() else {}
        if unknown := said.keys() - DEFAULTS.keys():
            message = f"{options}: unknown {', '.join(sorted(unknown))}"
            raise ValueError(message)
        found.append(Case(folder, {**usual, **said}))
    return found


@contextmanager
def disk_of(case: Case, scratch: Path, vault: str) -> Iterator[str]:
    """Build the disk of a case: `plain` in a directory, `fscrypt` on ext4 with a real policy on the vault, `otherfs` in two."""
    top = str(scratch / "persist")
    image = str(scratch / "image")
    place = os.path.join(top, case.vault)
    tree = case.tree
    with ExitStack() as stack:
        os.makedirs(top)
        identifier = b""
        size = case.options["fs_size"]
        if vault == "fscrypt" or size or case.options["damaged"]:
            stack.enter_context(vaults.mounted(image, top, size=size or ("160M" if _bulk(tree) else "64M")))
        if vault == "fscrypt":
            identifier = vaults.add_key(top)
        if case.vault in tree and vault != "plain":
            if vault == "fscrypt":
                _encrypt(place, identifier)
            else:
                stack.enter_context(vaults.mounted(f"{image}-vault", place, kind="xfs"))
        own = _encrypt_others(case, top, identifier)
        build(tree, top)
        _build_outside(case, top)
        stack.enter_context(trouble.release(str(scratch / "release"), case.options["release"]))
        _trouble(case, top, image, stack)
        for key in (identifier if case.options["lock_vault"] else b"", own):
            if key:
                vaults.lock(top, key)
        before = os.umask(case.options["umask"])
        stack.callback(os.umask, before)
        yield top


def _build_outside(case: Case, top: str) -> None:
    os.makedirs(_outside(top))
    build(case.outside, _outside(top))


def _encrypt_others(case: Case, top: str, identifier: bytes) -> bytes:
    """Make the directories that are encrypted besides the vault; returns the key of what is to be locked."""
    if identifier and case.options["encrypted"]:
        _encrypt(f"{top}/{case.options['encrypted']}", identifier)
    if not case.options["locked_directory"]:
        return b""
    own = vaults.add_key(top, bytes(range(64, 128)))
    _encrypt(f"{top}/{case.options['locked_directory']}", own)
    return own


def _encrypt(place: str, identifier: bytes) -> None:
    os.makedirs(place)
    vaults.encrypt(place, identifier)


def _outside(top: str) -> str:
    return os.path.join(os.path.dirname(top), "outside")


def _bulk(tree: Tree) -> bool:
    return sum(int(entry.get("size", 0)) for entry in tree.values()) > 32 << 20


def _trouble(case: Case, top: str, image: str, stack: ExitStack) -> None:
    """Do to a disk what the case says that somebody else does."""
    options = case.options
    if options["interrupted"]:
        trouble.interrupt(case.starts(top)[0], options["interrupted"]["before"])
        trouble.write_anew(f"{top}/{options['interrupted']['written']}")
    if options["damaged"]:
        trouble.damage(image, top, options["damaged"])
    for name, make in (
        ("immutable", trouble.immutable),
        ("read_only", trouble.read_only),
        ("mount_inside", trouble.mount_inside),
        ("hold_open", trouble.hold_open),
    ):
        if options[name]:
            stack.enter_context(make(f"{top}/{options[name]}"))
    if options["restless"]:
        stack.enter_context(trouble.restless(f"{top}/{options['restless']['path']}", options["restless"]["during"]))
