"""The `Disk` port: every verb that the engine may use on a file system, with its durability promise.

All paths are relative to the root and never leave it: no verb follows a symbolic link, in any component (D7). Nothing is
durable before a `sync_*` verb that covers it has returned. A verb that fails raises `OSError` and may have done part of its
work only where its docstring says so. This module knows nothing of plans, journals or packs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, field

from upgradeconverter.disk.manifest import content_digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upgradeconverter.model.entry import Domain, Entry, Space, TreeFacts
    from upgradeconverter.model.plan import Attributes

ENGINE_FOLDER = ".upgradeconverter"


class Names(Struct, kw_only=True):
    """Files of which some copies have met one name, while other names may come: so that copies share an inode where sources do.

    Attributes:
        folder: where in the target's domain each such file keeps a name, until `remove` takes the folder away.
        known: by device, inode and attributes of their own: number in the folder, checksum, names that are still to come.
    """

    folder: str
    known: dict[tuple[int, int, Attributes | None], tuple[int, int, int]] = field(default_factory=dict)
    count: int = 0


class CopyOrder(Struct, frozen=True, kw_only=True):
    """What to copy and how.

    Attributes:
        additions: files (path inside, content) that are put into the copy of a directory.
        omissions: paths inside that are left out.
        sha256: whether the SHA-256 of a regular file is to be computed on the way.
        after: attributes that the top of the copy gets instead of the source's.
        names: files that other copies of the same transaction may have met; without it hard links are kept inside a copy only.
        hollow: whether files get their size and attributes, and no content: see `disk.streaming`.
    """

    source: str
    target: str
    after: Attributes
    additions: tuple[tuple[str, bytes], ...] = ()
    omissions: tuple[str, ...] = ()
    sha256: bool = False
    names: Names | None = None
    hollow: bool = False


class Place(Struct, frozen=True, kw_only=True):
    """How far a stream has come: the content before it lies at the new place, that from it on at the old one.

    Attributes:
        path: a file inside, in the order of a walk; empty for a stream of a single file, and where nothing is over yet.
        offset: bytes of that file which are over.
        atime_ns, mtime_ns, capability: what writing to that file takes away from it, the last as hexadecimal digits.
    """

    path: str = ""
    offset: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    capability: str = ""


class StreamOrder(Struct, frozen=True, kw_only=True):
    """What content is to be taken over, piece by piece, from something into a hollow copy of it.

    Attributes:
        piece: bytes that may lie in both at the same time.
        start: how far it has come already.
        apart: paths inside that only one of them has.
    """

    source: str
    target: str
    piece: int
    start: Place = field(default_factory=Place)
    apart: frozenset[str] = frozenset()


class CopyReceipt(Struct, frozen=True, kw_only=True):
    """What a copy turned out to be.

    Attributes:
        identity: inode of the copy's top.
        manifest: one line per entry of the copy, see `disk.manifest.line`; what a directory holds follows it.
        sha256: digest of the content where it was asked for.
    """

    identity: int
    manifest: str
    sha256: str | None = None

    @property
    def digest(self) -> str:
        """What is known of the content from copying it, and by which kind of digest; see `content_digest`."""
        return f"sha256:{self.sha256}" if self.sha256 is not None else content_digest(self.manifest)


class Disk(Protocol):
    """A root directory and the verbs on it."""

    # --- looking: no effect at all, not even on access times -----------------------------------------------------------

    def find(self, path: str, *, labels: bool = False) -> Entry | None:
        """Return the facts of a path, or None where nothing is there or a component is no directory.

        With `labels` also our own extended attributes, and whether it is fixed where that is told without opening it.
        """
        ...

    def entries(self, path: str, *, labels: bool = False) -> tuple[Entry, ...]:
        """Return what lies directly in a directory, sorted by name, without the engine's own folder at the home of a domain."""
        ...

    def read(self, path: str, limit: int) -> bytes:
        """Return the content of a regular file as it is at one moment.

        OSError EFBIG when it is larger than `limit` bytes, EBUSY while somebody writes to it.
        """
        ...

    def part(self, path: str, start: int, size: int) -> bytes:
        """Return `size` bytes of a regular file from some place on, or what there is of them."""
        ...

    def tail(self, path: str, size: int) -> bytes:
        """Return the last `size` bytes of a regular file, or all of it where it has no more."""
        ...

    def survey(self, path: str, *, closely: bool = False, inside: bool = True) -> TreeFacts:
        """Walk a file or tree and return its facts; `closely` also those that a copy may not keep, for which all is opened.

        Not `inside`: of a directory only what it is itself, and the names directly in it, however much these hold.

        What is mounted inside is for the caller to add: one look at `mounts` does for many.
        """
        ...

    def mounts(self, path: str) -> tuple[str, ...]:
        """Return every place at which something is mounted: the path itself, unless it is the root, and all inside."""
        ...

    def sha256(self, path: str) -> str:
        """Return the SHA-256 of a regular file's content, in hexadecimal."""
        ...

    def manifest(self, path: str) -> str:
        """Return the manifest of what lies at a path, in the form of `CopyReceipt.manifest`; reads all content."""
        ...

    def same_content(self, first: str, second: str, additions: Iterable[tuple[str, bytes]] = ()) -> bool:
        """Return whether the second equals the first (plus additions) in kinds, content and, inside trees, owner and mode."""
        ...

    def domain(self, path: str) -> Domain:
        """Return the domain of an existing directory, or of the nearest existing one above the path."""
        ...

    def space(self, path: str) -> Space:
        """Return what is free on the file system of an existing directory."""
        ...

    def vault_state(self, path: str) -> str:
        """Return `missing`, `locked`, `read-only`, `not a directory`, `plain` or `usable` for a vault directory."""
        ...

    def is_open(self, path: str) -> bool:
        """Return whether another process has a regular file open, or one inside a directory for writing (best effort)."""
        ...

    def used_by(self, path: str) -> str:
        """Return who still uses what a running program leaves as a mark, in words; empty for nobody (best effort).

        That is a file that another process has open or locked, or that holds the number of a process which runs since before it
        was written; a socket that somebody listens at; a directory with any of these in it.
        """
        ...

    def lived_in(self, trees: Iterable[str], folders: Iterable[str] = ()) -> frozenset[str]:
        """Return which trees another process is in: a directory of it is open, the root or the working directory of that.

        Of `folders` only they themselves count, not what is inside. Best effort. One look for all of them: it goes through
        every process there is, so it takes much longer than any other.
        """
        ...

    def silent(self) -> Disk:
        """Return the same disk, on which nobody can notice that files are read: others are not asked by leases (D6)."""
        ...

    def clock(self) -> str:
        """Return the time in UTC as ISO 8601, for people; at early boot it may say 1970, so nothing is decided by it."""
        ...

    def is_immutable(self, path: str) -> bool:
        """Return whether the immutable or append-only flag of a path forbids to change it."""
        ...

    # --- acting --------------------------------------------------------------------------------------------------------

    def make_directory(self, path: str, attributes: Attributes) -> int:
        """Make a directory that must not exist; return its identity."""
        ...

    def write_file(self, path: str, content: bytes, attributes: Attributes) -> int:
        """Make a file that must not exist, with content; return its identity."""
        ...

    def make_hard_link(self, source: str, path: str) -> int:
        """Give a regular file a second name in the same domain; returns its identity."""
        ...

    def make_link(self, path: str, destination: str) -> int:
        """Make a symbolic link that must not exist; return its identity."""
        ...

    def copy(self, order: CopyOrder, *, progress: Progress | None = None) -> CopyReceipt:
        """Copy a file or tree with all metadata, holes and hard links to a name that must not exist.

        May leave a partial copy when it fails. Raises SourceInUseError when somebody has something of it open for writing, and
        SourceChangedError when it changes under the copy, or somebody is about to change it.
        """
        ...

    def stream(self, order: StreamOrder, keep: Keep, *, back: bool = False, progress: Progress | None = None) -> None:
        """Take the content of a file or tree over into a hollow copy of it, or `back` from there, piece by piece.

        `keep` is told of the place behind each piece once that is durable, and before it is let go where it came from. May have
        done part when it fails, as far as `keep` was told, and can go on from there either way. Raises SourceInUseError.
        """
        ...

    def rename(self, source: str, target: str) -> None:
        """Rename within a domain; FileExistsError when the target exists. Atomic."""
        ...

    def set_attributes(self, path: str, attributes: Attributes) -> None:
        """Set owner, then mode, then labels, then times; may have done part when it fails. Idempotent."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file or tree; nothing there is fine. May have removed part when it fails."""
        ...

    def remove_directory(self, path: str) -> bool:
        """Remove a directory if it is there and empty; return whether it is gone. What is no directory stays."""
        ...

    def append(self, path: str, content: bytes) -> None:
        """Append to a file, which is made (0600) if missing, and make the content durable before returning."""
        ...

    def truncate(self, path: str, size: int) -> None:
        """Cut a file and make that durable before returning."""
        ...

    # --- durability ----------------------------------------------------------------------------------------------------

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        ...

    def sync_file(self, path: str) -> None:
        """Make a file's, or a directory's own, content and attributes durable."""
        ...

    def sync_filesystem(self, path: str) -> None:
        """Make everything on the file system that holds a directory durable; raises on any write error since mount."""
        ...


class Progress(Protocol):
    """Told of bytes that went by, so that people and watchdogs see that something moves."""

    def __call__(self, size: int) -> None:
        """Take note of `size` more bytes."""
        ...


class Keep(Protocol):
    """Makes it durable how far a stream has come."""

    def __call__(self, place: Place) -> None:
        """Return once the place is known for good."""
        ...


class SourceChangedError(Exception):
    """The source of a copy changed while it was read."""


class SourceInUseError(SourceChangedError):
    """Somebody has the source of a copy, or a file inside, open for writing, so that it may change."""
