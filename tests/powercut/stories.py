"""What goes on when the power is cut: on which file systems, on which old disk, with which starts of the program.

The tree of the fixture lies in the folder `persist` of the file system. Beside it, and beside the vault where that is on a file
system of its own, lies the file of a neighbour, another process that keeps syncing: whatever it does a kernel may do at any time,
and each sync of a file of its own carries everybody's names, but not everybody's content, to the disk. Just that order is the
dangerous one. Needs root.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.powercut.blockdev import bound, mounted
from tests.support import vaults
from tests.support.cases import load_cases
from tests.support.disktree import build

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from random import Random

    from tests.support.cases import Case

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT = "persist"
VAULT = "vault"
NEIGHBOUR = "neighbour"
TARGET = ("--target", "latest")
LONGEST = 120
_THEN = 1_650_000_000_000_000_000
# linux/btrfs.h: begin a commit, and wait for it; neither writes back what files hold.
_BTRFS_START_SYNC = 0x80089418
_BTRFS_WAIT_SYNC = 0x40089416


@dataclass(frozen=True, slots=True)
class Format:
    """One file system: how it is made and mounted, and which of its blocks (by number) a disk never tears."""

    kind: str
    size: int
    maker: tuple[str, ...]
    options: str
    whole: tuple[int, ...] = ()


# The weakest settings that are legal: no wait for content when a name is replaced, and a small journal.
EXT4 = Format(
    "ext4",
    24 << 20,
    (*vaults.MAKERS["ext4"], "-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "nodiscard,noauto_da_alloc",
    (0,),
)
XFS = Format("xfs", 320 << 20, vaults.MAKERS["xfs"], "nouuid,nodiscard")
BTRFS = Format("btrfs", 128 << 20, vaults.MAKERS["btrfs"], "nodiscard", (16, 16384))


@dataclass(frozen=True, slots=True)
class Place:
    """File systems that a disk consists of: the first holds all, a folder of a second one is the vault.

    Attributes:
        encrypted: whether the vault is behind a key.
        subvolume: whether the vault is a subvolume of its own.
    """

    name: str
    formats: tuple[Format, ...]
    encrypted: bool = False
    subvolume: bool = False

    @property
    def whole(self) -> frozenset[tuple[int, int]]:
        """Blocks that are never torn, by disk."""
        return frozenset((disk, number) for disk, each in enumerate(self.formats) for number in each.whole)

    def tops(self, top: str) -> tuple[str, ...]:
        """Return where each file system is mounted."""
        return tuple(top if number == 0 else f"{top}-{number}" for number in range(len(self.formats)))

    def make(self, images: Sequence[str], top: str, case: Case) -> None:
        """Make the file systems and build the old disk of a case; `top` is a directory to mount on."""
        for each, image, point in zip(self.formats, images, self.tops(top), strict=True):
            with open(image, "wb") as stream:
                stream.truncate(each.size)
            subprocess.run([*each.maker, image], check=True, stdout=subprocess.DEVNULL)
            # A log that was filled with zeros need not be copied for each survivor.
            subprocess.run(["fallocate", "--dig-holes", image], check=True)
            os.makedirs(point, exist_ok=True)
            with mounted(image, point, each.kind, each.options):
                self._furnish(point, case, is_first=point == top)
        with self.open(images, top, case) as root:
            build(case.tree, root)

    def _furnish(self, point: str, case: Case, *, is_first: bool) -> None:
        """Make what has to be on a file system before it is used: the neighbour's file, and the vault, or its folder."""
        with open(f"{point}/{NEIGHBOUR}", "wb"):
            pass
        vault = f"{point}/{ROOT}/{case.vault}" if is_first else f"{point}/{VAULT}"
        os.makedirs(os.path.dirname(vault), exist_ok=True)
        if self.subvolume:
            subprocess.run(["btrfs", "subvolume", "create", vault], check=True, stdout=subprocess.DEVNULL)
        else:
            os.mkdir(vault)
        if self.encrypted:
            vaults.encrypt(vault, vaults.add_key(point))

    @contextmanager
    def open(self, images: Sequence[str], top: str, case: Case) -> Iterator[str]:
        """Mount the disk, with its vault unlocked; yields the root that the program works on."""
        with ExitStack() as stack:
            for each, image, point in zip(self.formats, images, self.tops(top), strict=True):
                os.makedirs(point, exist_ok=True)
                stack.enter_context(mounted(image, point, each.kind, each.options))
                if point != top:
                    stack.enter_context(bound(f"{point}/{VAULT}", f"{top}/{ROOT}/{case.vault}"))
            if self.encrypted:
                vaults.add_key(top)
            yield f"{top}/{ROOT}"


PLACES = {
    place.name: place
    for place in (
        Place("ext4 with an encrypted vault", (EXT4,), encrypted=True),
        Place("xfs", (XFS,)),
        Place("btrfs", (BTRFS,)),
        Place("btrfs with its vault a subvolume", (BTRFS,), subvolume=True),
        Place("ext4 with its vault on xfs", (EXT4, XFS)),
    )
}


@dataclass(frozen=True, slots=True)
class Story:
    """Starts of the program that are recorded, after others that are not, on the disk of one fixture.

    Between these somebody may write (`REWRITE`).

    After a power cut the start that was under way is made again, and those after it; every other time the first one of the story
    comes before that. Where `other_end` is given, that is made instead every other time: it gives what was before the story.
    """

    name: str
    fixture: str
    starts: tuple[tuple[str, ...], ...]
    before: tuple[tuple[str, ...], ...] = ()
    other_end: tuple[str, ...] = ()

    @property
    def case(self) -> Case:
        """The fixture."""
        return _case(self.fixture)


@cache
def _case(name: str) -> Case:
    pack, _, fixture = name.partition("/")
    return next(case for case in load_cases(pack) if case.name == fixture)


# No start of the program: the old system is back and writes.
REWRITE = ("rewrite",)


def run_of(case: Case) -> tuple[str, ...]:
    """Return the words of a run on the disk of a fixture."""
    return (*case.options["starts"][0], "--pack", case.pack, *TARGET)


def stories(fixture: str) -> tuple[Story, ...]:
    """Return all stories of one fixture, which is named with its pack."""
    run = run_of(_case(fixture))
    trial, confirm, rollback = (("--trial", *run), ("confirm", *run), ("rollback", *run))
    return (
        Story("run", fixture, (run,)),
        Story("trial and confirm", fixture, (trial, confirm)),
        Story("rollback", fixture, (rollback,), before=(run,), other_end=run),
        Story("rollback of a trial", fixture, (rollback,), before=(trial,), other_end=trial),
        Story("trial of what was rewritten", fixture, (trial, confirm), before=(trial, REWRITE)),
    )


def rewrite(root: str, case: Case, moves: Moves) -> None:
    """Put a new version in the place of one file of each volume or disk, as the old system does while a trial waits."""
    for top in (old for old, new in moves if "/volumes/" in new or new.startswith("vm/linux/")):
        files = (path for path, entry in case.tree.items() if entry["kind"] == "file" and f"{path}/".startswith(f"{top}/"))
        path = Path(root, next(files))
        version = path.with_name("version being written")
        version.write_bytes(path.read_bytes() + b"written by the old system")
        shutil.copystat(path, version)
        os.utime(version, ns=(_THEN, _THEN))
        os.chown(version, path.stat().st_uid, path.stat().st_gid)
        version.rename(path)


def start(root: str, words: Sequence[str], program: Sequence[str] = ("-m", "upgradeconverter")) -> int:
    """Start the program as a process of its own; returns its exit status."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "UPGRADECONVERTER_"))}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, *program, *words, "-p", root, "--output", "json"]
    done = subprocess.run(command, check=False, cwd=REPOSITORY, env=environment, capture_output=True, timeout=LONGEST)
    return done.returncode


@contextmanager
def neighbour(place: Place, top: str, random: Random, *, also_everything: bool) -> Iterator[None]:
    """Let somebody else sync on each file system: a file of its own, and now and then everything.

    Once more at the end, before the disk rests.
    """
    stop = threading.Event()
    there = [(point, each.kind) for point, each in zip(place.tops(top), place.formats, strict=True)]
    plan = [
        (random.uniform(0.002, 0.08 / len(there)), random.choice(there), also_everything and random.random() < 0.2)
        for _ in range(1000 * len(there))
    ]

    def work() -> None:
        for pause, (point, kind), everybody in plan:
            if stop.wait(pause):
                break
            if everybody:
                subprocess.run(["sync", "-f", point], check=True)
            else:
                _sync_own_file(point, kind)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()
    for point, kind in there:
        _sync_own_file(point, kind)


def _sync_own_file(top: str, kind: str) -> None:
    fd = os.open(f"{top}/{NEIGHBOUR}", os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, b"here\n")
        os.fsync(fd)
        if kind == "btrfs":
            # Syncing a file writes a log of that file only; a commit is what the kernel does by itself after a while.
            buffer = bytearray(8)
            fcntl.ioctl(fd, _BTRFS_START_SYNC, buffer)
            fcntl.ioctl(fd, _BTRFS_WAIT_SYNC, struct.pack("=Q", struct.unpack("=Q", buffer)[0]))
    finally:
        os.close(fd)


# --- what has to be caught -----------------------------------------------------------------------------------------------

_SWALLOW = (
    "import sys; from upgradeconverter.disk import native; native.sync_filesystem = lambda *_: None; "
    "from upgradeconverter.cli.main import main; sys.exit(main(sys.argv[1:]))"
)
Moves = tuple[tuple[str, str], ...]


def without_syncfs(root: str, _moves: Moves) -> None:
    """The program, but the sync that makes staged copies durable does nothing."""
    start(root, TARGET, ("-c", _SWALLOW))


def by_mv(root: str, moves: Moves) -> None:
    """GNU mv, one artifact after the other."""
    for source, target in moves:
        os.makedirs(os.path.dirname(f"{root}/{target}"), exist_ok=True)
        subprocess.run(["mv", f"{root}/{source}", f"{root}/{target}"], check=True)


def straight_copy(root: str, moves: Moves) -> None:
    """Each directory is copied to its final name, each file synced, and the source removed: the order of EVE's converter."""
    for source, target in moves:
        if os.path.isdir(f"{root}/{source}"):
            for folder, _, names in os.walk(f"{root}/{source}"):
                there = f"{root}/{target}{folder.removeprefix(f'{root}/{source}')}"
                os.makedirs(there)
                for name in names:
                    subprocess.run(["cp", "--preserve=all", f"{folder}/{name}", f"{there}/{name}"], check=True)
                    subprocess.run(["sync", f"{there}/{name}"], check=True)
            subprocess.run(["rm", "-r", f"{root}/{source}"], check=True)


CONTROLS = {"the program without syncfs": without_syncfs, "mv": by_mv, "a directory straight to its name": straight_copy}
