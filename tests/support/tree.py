r"""A directory tree as text that a person can read, compare and change, and that rebuilds the tree exactly.

Owns the format, and the way from a directory to it and back. Must not know what the trees mean.

Format: one block per entry, sorted by path; what is indented belongs to the entry above. Bytes of a name outside of
printable ASCII, spaces and backslashes are written as `\xNN`. Times are seconds, and an access time is only there when
it differs from the modification time. The further names of a hard-linked file say `link=` and nothing else.

    #tree 1
    . type=dir mode=0755 owner=0:0 mtime=1594000000
    bin type=link mode=0777 owner=0:0 mtime=1594000000 target=usr/bin
    disk.raw type=file mode=0644 owner=0:0 mtime=1594000000.000000001 atime=1600000000 size=1048576
      xattr user.note "thin"
      at 0
      text "some words\n"
      base64 AAEC
      repeat 4082 "\u0000"
      at 524288
      shake256:seed:4096
    name\x20with\x20space link=disk.raw

Without `size=` and `at` a file has no holes and its content is all its lines together. `repeat` fills a size with a
pattern. `shake256:SEED:SIZE` stands for the first SIZE bytes of the SHAKE-256 stream of SEED: it is opaque, as
different as the seeds are, and a shorter one is the beginning of a longer one. Holes are multiples of 4096 bytes; a
file of up to 4096 bytes has none.
"""

from __future__ import annotations

import base64
import errno
import fnmatch
import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

HEADER = "#tree 1"
ROOT = "."
BLOCK = 4096

_IGNORED_XATTRS = {"security.selinux"}  # the host's policy puts it on everything
_LONGEST_PATTERN = 64
_BASE64_LINE = 72
_ZEROS = re.compile(rb"\0{256,}")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})|\\")
_TIME = re.compile(r"(-?)(\d+)(?:\.(\d{1,9}))?")
_EMPTY_MEGABYTE = bytes(1 << 20)
_NO_HEADER = f"the first line is not {HEADER!r}"
_NO_TIME = "a time is a decimal number with at most nine places"
_NO_WORD = "content is text, base64, repeat or shake256"


class TreeError(ValueError):
    """Something that no tree can be: says what, and in which line where that is known."""

    def __init__(self, problem: str, line: int = 0, head: str = "") -> None:
        super().__init__(f"line {line}: {problem}: {head!r}" if line else problem)


def _require(condition: object, problem: str) -> None:
    if not condition:
        raise TreeError(problem)


class Kind(StrEnum):
    """What an entry is."""

    DIRECTORY = "dir"
    FILE = "file"
    LINK = "link"
    FIFO = "fifo"
    CHARACTER_DEVICE = "char"
    BLOCK_DEVICE = "block"
    SOCKET = "socket"


_FORMATS = {
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.LINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
    stat.S_IFSOCK: Kind.SOCKET,
}
_NODES = {kind: number for number, kind in _FORMATS.items()}
_DEVICES = (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE)

# --- content ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes as they are."""

    data: bytes

    @property
    def size(self) -> int:
        """How many bytes."""
        return len(self.data)

    def render(self) -> bytes:
        """Give the bytes."""
        return self.data


@dataclass(frozen=True, slots=True)
class Repeat:
    """A pattern over and over, cut at `size`."""

    pattern: bytes
    size: int

    def render(self) -> bytes:
        """Give the bytes."""
        return (self.pattern * (self.size // len(self.pattern) + 1))[: self.size]


@dataclass(frozen=True, slots=True)
class Shake:
    """Opaque bytes made from a seed."""

    seed: str
    size: int

    def render(self) -> bytes:
        """Give the bytes."""
        return hashlib.shake_256(self.seed.encode()).digest(self.size)


Piece: TypeAlias = Literal | Repeat | Shake
Pieces: TypeAlias = tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a regular file holds; two are equal when bytes and holes are, however they are written down.

    Attributes:
        size: length, in bytes.
        sha256: digest of all bytes, holes read as zeros.
        extents: (offset, size) of the data between the holes; None: there are no holes.
        pieces: how to make each extent.
    """

    size: int
    sha256: str
    extents: tuple[tuple[int, int], ...] | None
    pieces: tuple[Pieces, ...] = field(compare=False, repr=False)

    @classmethod
    def dense(cls, pieces: Iterable[Piece]) -> Content:
        """Make content without holes."""
        joined = _join(pieces)
        data = b"".join(piece.render() for piece in joined)
        return cls(size=len(data), sha256=hashlib.sha256(data).hexdigest(), extents=None, pieces=(joined,))

    @classmethod
    def sparse(cls, size: int, extents: Iterable[tuple[int, Iterable[Piece]]]) -> Content:
        """Make content of extents, given with their offset, and with holes everywhere else.

        Raises:
            TreeError: a hole could not be a hole on a disk, or there is none.
        """
        layout: list[tuple[int, int]] = []
        pieces: list[Pieces] = []
        digest, end = hashlib.sha256(), 0
        for offset, parts in extents:
            data = b"".join(piece.render() for piece in parts)
            _require(data and offset % BLOCK == 0, "an extent has content and starts at a multiple of 4096")
            _require(offset > end or not layout, "extents are in order, with holes between them")
            _hash_zeros(digest.update, offset - end)
            digest.update(data)
            end = offset + len(data)
            _require(
                end == size or (end < size and end % BLOCK == 0), "an extent ends at a multiple of 4096 or the end"
            )
            layout.append((offset, len(data)))
            pieces.append(_join(parts))
        _require(size > BLOCK and layout != [(0, size)], "a file without holes has neither size nor extents")
        _hash_zeros(digest.update, size - end)
        return cls(size=size, sha256=digest.hexdigest(), extents=tuple(layout), pieces=tuple(pieces))

    @classmethod
    def of(cls, data: bytes) -> Content:
        """Make content without holes from bytes."""
        return cls.dense(encode(data))

    def parts(self) -> Iterator[tuple[int, bytes]]:
        """Give all data with its offset."""
        for (offset, _), pieces in zip(self.extents or ((0, self.size),), self.pieces, strict=self.extents is not None):
            yield offset, b"".join(piece.render() for piece in pieces)


def encode(data: bytes) -> Pieces:
    """Find a short way to write data down."""
    period = _find_period(data)
    if period:
        return (Repeat(data[:period], len(data)),)
    pieces: list[Piece] = []
    at = 0
    for zeros in _ZEROS.finditer(data):
        pieces += [Literal(data[at : zeros.start()]), Repeat(b"\0", len(zeros.group()))]
        at = zeros.end()
    return _join([*pieces, Literal(data[at:])])


def _find_period(data: bytes) -> int:
    sample = data[: 8 * _LONGEST_PATTERN]
    for period in range(1, min(_LONGEST_PATTERN, len(data) // 8) + 1):
        if sample[period:] == sample[:-period] and data[period:] == data[:-period]:
            return period
    return 0


def _join(pieces: Iterable[Piece]) -> Pieces:
    joined: list[Piece] = []
    for piece in pieces:
        if joined and isinstance(piece, Literal) and isinstance(joined[-1], Literal):
            joined[-1] = Literal(joined[-1].data + piece.data)
        elif piece.size:
            joined.append(piece)
    return tuple(joined)


def _hash_zeros(update: Callable[[bytes], None], size: int) -> None:
    for _ in range(size // len(_EMPTY_MEGABYTE)):
        update(_EMPTY_MEGABYTE)
    update(_EMPTY_MEGABYTE[: size % len(_EMPTY_MEGABYTE)])


# --- entries and trees ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Everything about one name.

    Attributes:
        kind: what it is.
        mode: permissions, with the set-ID and sticky bits.
        uid: owner.
        gid: group.
        mtime_ns: time of modification.
        atime_ns: time of access.
        xattrs: extended attributes with their values, sorted by name; ACLs and capabilities are among them.
        content: of a regular file.
        target: of a symbolic link.
        rdev: major and minor number of a device.
        link: first name of the same inode in this tree, None for the first one itself.
    """

    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    atime_ns: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    content: Content | None = None
    target: str | None = None
    rdev: tuple[int, int] | None = None
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """All entries of a directory by their path relative to it, in the order of the text; the directory is "."."""

    entries: Mapping[str, Entry]

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", dict(sorted(self.entries.items(), key=lambda item: sort_key(item[0]))))


def sort_key(path: str) -> list[bytes]:
    """Order paths so that what is in a directory follows it immediately."""
    return [] if path == ROOT else os.fsencode(path).split(b"/")


def parent_of(path: str) -> str:
    """Name the directory that a path lies in."""
    return os.path.dirname(path) or ROOT


# --- text out ---------------------------------------------------------------------------------------------------------


def dump(tree: Tree) -> str:
    """Write a tree as text; what was parsed keeps the way in which its content is written."""
    lines = [HEADER]
    for path, entry in tree.entries.items():
        name = escape(path)
        name = f"\\x23{name[1:]}" if name.startswith("#") else name
        if entry.link is not None:
            lines.append(f"{name} link={escape(entry.link)}")
            continue
        lines.append(f"{name} {' '.join(_describe(entry))}")
        lines += [f"  xattr {escape(key)} {quote(value)}" for key, value in entry.xattrs]
        if entry.content:
            lines += [f"  {line}" for line in _content_lines(entry.content)]
    return "\n".join(lines) + "\n"


def escape(name: str) -> str:
    """Write a name without spaces, line ends and bytes that are not ASCII."""
    return "".join(chr(b) if 0x20 < b < 0x7F and b != 0x5C else f"\\x{b:02x}" for b in os.fsencode(name))


def quote(data: bytes) -> str:
    """Write bytes on one line, as a JSON string if they are text."""
    if is_text(data):
        return json.dumps(data.decode())
    return f"base64:{base64.b64encode(data).decode()}"


def is_text(data: bytes) -> bool:
    """Tell if data is UTF-8 without control characters."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return not _CONTROL.search(data)


def format_time(time_ns: int) -> str:
    """Write nanoseconds as seconds."""
    seconds, rest = divmod(abs(time_ns), 10**9)
    return f"{'-' if time_ns < 0 else ''}{seconds}" + (f".{rest:09}".rstrip("0") if rest else "")


def _describe(entry: Entry) -> Iterator[str]:
    yield f"type={entry.kind}"
    yield f"mode={entry.mode:04o}"
    yield f"owner={entry.uid}:{entry.gid}"
    yield f"mtime={format_time(entry.mtime_ns)}"
    if entry.atime_ns != entry.mtime_ns:
        yield f"atime={format_time(entry.atime_ns)}"
    if entry.content and entry.content.extents is not None:
        yield f"size={entry.content.size}"
    if entry.target is not None:
        yield f"target={escape(entry.target)}"
    if entry.rdev:
        yield f"rdev={entry.rdev[0]}:{entry.rdev[1]}"


def _content_lines(content: Content) -> Iterator[str]:
    for number, pieces in enumerate(content.pieces):
        if content.extents is not None:
            yield f"at {content.extents[number][0]}"
        for piece in pieces:
            yield from _piece_lines(piece)


def _piece_lines(piece: Piece) -> Iterator[str]:
    match piece:
        case Shake(seed, size):
            yield f"shake256:{seed}:{size}"
        case Repeat(pattern, size):
            yield f"repeat {size} {quote(pattern)}"
        case Literal(data) if is_text(data):
            yield from (f"text {json.dumps(line)}" for line in re.findall(r"[^\n]*\n|[^\n]+", data.decode()))
        case Literal(data):
            for at in range(0, len(data), _BASE64_LINE):
                yield f"base64 {base64.b64encode(data[at : at + _BASE64_LINE]).decode()}"


# --- text in ----------------------------------------------------------------------------------------------------------


def parse(text: str) -> Tree:
    """Read a tree from text.

    Raises:
        TreeError: the text says nothing that could be built.
    """
    lines = text.split("\n")
    if lines[0] != HEADER:
        raise TreeError(_NO_HEADER, 1, lines[0])
    entries: dict[str, Entry] = {}
    for number, head, body in _blocks(lines):
        try:
            path, entry = _parse_block(head, body, entries)
            _check_place(path, entries)
        except (ValueError, KeyError, IndexError) as error:
            raise TreeError(str(error), number, head) from error
        entries[path] = entry
    return Tree(entries)


def unescape(text: str) -> str:
    """Read what `escape` wrote.

    Raises:
        TreeError: a backslash is not followed by x and two lower-case hexadecimal digits.
    """

    def byte(found: re.Match[bytes]) -> bytes:
        _require(found.group(1), "a backslash starts \\xNN")
        return bytes.fromhex(found.group(1).decode())

    return os.fsdecode(_ESCAPE.sub(byte, text.encode()))


def unquote(text: str) -> bytes:
    """Read what `quote` wrote.

    Raises:
        ValueError: it is neither a JSON string nor base64.
    """
    if text.startswith("base64:"):
        return base64.b64decode(text.removeprefix("base64:"), validate=True)
    value = json.loads(text)
    _require(isinstance(value, str), "neither a JSON string nor base64")
    return str(value).encode()


def parse_time(text: str) -> int:
    """Read seconds as nanoseconds.

    Raises:
        TreeError: it is not a decimal number with at most nine places.
    """
    found = _TIME.fullmatch(text)
    if not found:
        raise TreeError(_NO_TIME)
    sign, seconds, places = found.groups("")
    return int(f"{sign}1") * (int(seconds) * 10**9 + int(places.ljust(9, "0")))


def _blocks(lines: list[str]) -> Iterator[tuple[int, str, list[str]]]:
    starts = [n for n, line in enumerate(lines) if line and not line.startswith((" ", "#"))]
    for number, end in pairwise([*starts, len(lines)]):
        body = [line.strip(" ") for line in lines[number + 1 : end] if line.startswith(" ") and line.strip(" ")]
        yield number + 1, lines[number], body


def _parse_block(head: str, body: list[str], entries: Mapping[str, Entry]) -> tuple[str, Entry]:
    name, *words = head.split(" ")
    values = dict(word.split("=", 1) for word in words)
    if "link" in values:
        first = unescape(values["link"])
        _require(len(words) == 1 and not body, "a further name says only link=")
        _require(entries[first].link is None and entries[first].kind is not Kind.DIRECTORY, "link= is the first name")
        return unescape(name), replace(entries[first], link=first)
    kind = Kind(values.pop("type"))
    uid, gid = values.pop("owner").split(":")
    mtime_ns = parse_time(values.pop("mtime"))
    entry = Entry(
        kind=kind,
        mode=int(values.pop("mode"), 8),
        uid=int(uid),
        gid=int(gid),
        mtime_ns=mtime_ns,
        atime_ns=parse_time(values.pop("atime")) if "atime" in values else mtime_ns,
        xattrs=_parse_xattrs([line for line in body if line.startswith("xattr ")]),
        content=_parse_content(values, body) if kind is Kind.FILE else None,
        target=unescape(values.pop("target")) if kind is Kind.LINK else None,
        rdev=_parse_rdev(values.pop("rdev")) if kind in _DEVICES else None,
    )
    _require(not values, f"a {kind} has no {', '.join(values)}")
    _require(kind is Kind.FILE or all(line.startswith("xattr ") for line in body), f"a {kind} has no content")
    return unescape(name), entry


def _check_place(path: str, entries: Mapping[str, Entry]) -> None:
    _require(path not in entries, "given twice")
    if path != ROOT:
        _require(not {"", ".", ".."}.intersection(path.split("/")), "no plain relative path")
        parent = entries.get(parent_of(path))
        _require(parent and parent.kind is Kind.DIRECTORY, "the directory that it lies in is not above it")


def _parse_xattrs(lines: list[str]) -> tuple[tuple[str, bytes], ...]:
    xattrs = [line.split(" ", 2) for line in lines]
    return tuple(sorted((unescape(name), unquote(value)) for _, name, value in xattrs))


def _parse_rdev(text: str) -> tuple[int, int]:
    major, minor = text.split(":")
    return int(major), int(minor)


def _parse_content(values: dict[str, str], body: list[str]) -> Content:
    lines = [line for line in body if not line.startswith("xattr ")]
    if "size" not in values:
        return Content.dense([_parse_piece(line) for line in lines])
    extents: list[tuple[int, list[Piece]]] = []
    for line in lines:
        if line.startswith("at "):
            extents.append((int(line.removeprefix("at ")), []))
        else:
            extents[-1][1].append(_parse_piece(line))
    return Content.sparse(int(values.pop("size")), extents)


def _parse_piece(line: str) -> Piece:
    if line.startswith("shake256:"):
        _, seed, size = line.split(":")
        return Shake(seed, int(size))
    word, value = line.split(" ", 1)
    if word == "text":
        return Literal(unquote(value))
    if word == "base64":
        return Literal(base64.b64decode(value, validate=True))
    if word == "repeat":
        size, pattern = value.split(" ", 1)
        return Repeat(unquote(pattern), int(size))
    raise TreeError(_NO_WORD)


# --- from and to a disk -----------------------------------------------------------------------------------------------


def capture(directory: str | os.PathLike[str], *, exclude: Iterable[str] = ()) -> Tree:
    """Read a directory without leaving a trace in any access time.

    Args:
        directory: may also be a mount point; other file systems mounted below are read like folders.
        exclude: relative paths, or patterns with `*` for them, that are left out with everything in them.
    """
    found: dict[str, tuple[Entry, tuple[int, int]]] = {}
    descriptor = _open_quietly(os.fspath(directory), os.O_DIRECTORY)
    try:
        found[ROOT] = _read_entry(descriptor, ROOT), (0, 0)
        _read_directory(descriptor, "", tuple(exclude), found)
    finally:
        os.close(descriptor)
    firsts: dict[tuple[int, int], str] = {}
    entries = {}
    for path in sorted(found, key=sort_key):
        entry, inode = found[path]
        first = path if entry.kind is Kind.DIRECTORY else firsts.setdefault(inode, path)
        entries[path] = entry if first == path else replace(entry, link=first)
    return Tree(entries)


def build(tree: Tree | str, directory: str | os.PathLike[str]) -> None:
    """Make a tree on a disk; needs root for owners, devices and most extended attributes.

    Directories, among them `directory` itself, may exist already, so that some can be mount points or encrypted.
    """
    entries = (parse(tree) if isinstance(tree, str) else tree).entries
    root = os.fspath(directory)
    for path, entry in entries.items():
        _make(root, path, entry)
    for path in reversed(
        list(entries)
    ):  # directories after their contents: making those changes times and asks for ACLs
        if entries[path].link is None:
            _set_attributes(os.path.join(root, path), entries[path])


def _read_directory(
    descriptor: int, prefix: str, exclude: tuple[str, ...], found: dict[str, tuple[Entry, tuple[int, int]]]
) -> None:
    for name in os.listdir(descriptor):
        path = f"{prefix}{name}"
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in exclude):
            continue
        entry = _read_entry(descriptor, name)
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        found[path] = entry, (status.st_dev, status.st_ino)
        if entry.kind is Kind.DIRECTORY:
            child = _open_quietly(name, os.O_DIRECTORY, descriptor)
            try:
                _read_directory(child, f"{path}/", exclude, found)
            finally:
                os.close(child)


def _read_entry(descriptor: int, name: str) -> Entry:
    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    kind = _FORMATS[stat.S_IFMT(status.st_mode)]
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        atime_ns=status.st_atime_ns,
        xattrs=_read_xattrs(f"/proc/self/fd/{descriptor}/{name}"),
        content=_read_content(descriptor, name) if kind is Kind.FILE else None,
        target=_read_target(descriptor, name, status) if kind is Kind.LINK else None,
        rdev=(os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in _DEVICES else None,
    )


def _open_quietly(name: str, flags: int, descriptor: int | None = None) -> int:
    return os.open(name, os.O_RDONLY | os.O_NOATIME | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=descriptor)


def _read_xattrs(path: str) -> tuple[tuple[str, bytes], ...]:
    names = set(os.listxattr(path, follow_symlinks=False)) - _IGNORED_XATTRS
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))


def _read_target(descriptor: int, name: str, status: os.stat_result) -> str:
    target = os.readlink(name, dir_fd=descriptor)
    # There is no O_NOATIME for links: put back what reading has changed.
    if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_atime_ns != status.st_atime_ns:
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=descriptor, follow_symlinks=False)
    return target


def _read_content(descriptor: int, name: str) -> Content:
    file = _open_quietly(name, 0, descriptor)
    try:
        size = os.fstat(file).st_size
        extents = _find_extents(file, size)
        if extents == [(0, size)]:
            return Content.of(_read(file, 0, size))
        return Content.sparse(size, [(start, encode(_read(file, start, end - start))) for start, end in extents])
    finally:
        os.close(file)


def _find_extents(file: int, size: int) -> list[tuple[int, int]]:
    if size <= BLOCK:
        return [(0, size)]
    extents: list[tuple[int, int]] = []
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA) // BLOCK * BLOCK
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        end = min(size, -(-os.lseek(file, max(start, end), os.SEEK_HOLE) // BLOCK) * BLOCK)
        if extents and extents[-1][1] >= start:
            start = extents.pop()[0]
        extents.append((start, end))
    return extents


def _read(file: int, offset: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.pread(file, min(size, 1 << 24), offset)
        if not part:
            raise OSError(errno.EIO, "the file became shorter while it was read")
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return b"".join(parts)


def _make(root: str, path: str, entry: Entry) -> None:
    place = os.path.join(root, path)
    if entry.link is not None:
        os.link(os.path.join(root, entry.link), place, follow_symlinks=False)
    elif entry.kind is Kind.DIRECTORY:
        if not os.path.isdir(place) or os.path.islink(place):
            os.mkdir(place, 0o700)
    elif entry.content:
        _write_file(place, entry.content)
    elif entry.target is not None:
        os.symlink(entry.target, place)
    else:
        os.mknod(place, _NODES[entry.kind] | 0o600, os.makedev(*(entry.rdev or (0, 0))))


def _write_file(place: str, content: Content) -> None:
    file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(file, content.size)  # first, so that no file system reserves space behind an extent
        for start, data in content.parts():
            view, offset = memoryview(data), start
            while view:
                written = os.pwrite(file, view, offset)
                view, offset = view[written:], offset + written
    finally:
        os.close(file)


def _set_attributes(place: str, entry: Entry) -> None:
    os.chown(place, entry.uid, entry.gid, follow_symlinks=False)  # clears set-ID bits and capabilities: first
    if entry.kind is not Kind.LINK:
        os.chmod(place, entry.mode)
    for name, value in entry.xattrs:
        os.setxattr(place, name, value, follow_symlinks=False)
    os.utime(place, ns=(entry.atime_ns, entry.mtime_ns), follow_symlinks=False)
