"""The fixtures as cases: builds the old disk, plain or with a real vault, and keeps the expected result."""

from __future__ import annotations

import os
import subprocess
import tomllib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import vaults
from tests.support.disktree import Tree, build, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


@dataclass(frozen=True, slots=True)
class Case:
    """One fixture folder; `options` are those of `case.toml`."""

    folder: Path
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def tree(self) -> Tree:
        """The disk before the run."""
        return parse((self.folder / "before.tree").read_text())

    @property
    def target(self) -> str:
        """Target layout of the case."""
        return str(self.options.get("target", "latest"))


def load_cases(pack: str) -> list[Case]:
    """Return all cases of a pack, by name."""
    found = []
    for folder in sorted((FIXTURES / pack).iterdir()):
        options = folder / "case.toml"
        found.append(Case(folder, tomllib.loads(options.read_text()) if options.exists() else {}))
    return found


@contextmanager
def disk_of(case: Case, scratch: Path, vault: str) -> Iterator[str]:
    """Build the disk of a case: `plain` in a directory, `fscrypt` on ext4 with a real policy on `vault`."""
    top = str(scratch / "persist")
    tree = case.tree
    with ExitStack() as stack:
        os.makedirs(top)
        identifier = b""
        size = str(case.options.get("fs_size", "64M"))
        if vault == "fscrypt" or "fs_size" in case.options:
            size = "160M" if size == "64M" and _bulk(tree) else size
            stack.enter_context(vaults.mounted(str(scratch / "image"), top, size=size))
        if vault == "fscrypt":
            identifier = vaults.add_key(top)
            if "vault" in tree:
                os.mkdir(f"{top}/vault")
                vaults.encrypt(f"{top}/vault", identifier)
        build(tree, top)
        _prepare(case, top, identifier, stack)
        yield top


def _bulk(tree: Tree) -> bool:
    return sum(int(entry.get("size", 0)) for entry in tree.values()) > 32 << 20


def _prepare(case: Case, top: str, identifier: bytes, stack: ExitStack) -> None:
    if "immutable" in case.options:
        place = f"{top}/{case.options['immutable']}"
        subprocess.run(["chattr", "+i", place], check=True)
        stack.callback(subprocess.run, ["chattr", "-i", place], check=True)
    if "read_only" in case.options:
        place = f"{top}/{case.options['read_only']}"
        subprocess.run(["mount", "--bind", place, place], check=True)
        stack.callback(subprocess.run, ["umount", "-l", place], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    if case.options.get("lock_vault") and identifier:
        vaults.lock(top, identifier)
    if "umask" in case.options:
        before = os.umask(int(case.options["umask"]))
        stack.callback(os.umask, before)
