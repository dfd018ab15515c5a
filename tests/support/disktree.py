"""A directory tree as text: build it, capture it, compare two.

One line per entry, a JSON object with sorted keys, sorted by path; git can hold that, but no owners, xattrs, times or empty
directories. Members: `path`, `kind` (the model's words), `mode` (octal text), `owner` ("uid:gid", absent for 0:0), `mtime` (ns),
`atime` (ns, absent when equal), `xattrs` (base64 by name), `to` (of a symlink), `device` (of a node), `link` (path of the first
name of a hard-linked file), `unreadable` (of a directory that the disk refuses to list), `size` and `data`: a list of [offset,
encoding, value] with encodings `text`, `base64`, `zlib` (base64 of what is compressed) and `shake256` (value "seed:length":
deterministic filler whose bytes do not matter). What no extent covers is a hole.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
import stat
import zlib
from typing import Any

from upgradeconverter.disk.walking import kind_of

Tree = dict[str, dict[str, Any]]
ENGINE = ".upgradeconverter"
# Parts of a file that ext4 needs no block of their own for.
_IN_THE_INODE = 4


def decode_extent(encoding: str, value: str) -> bytes:
    """Return the bytes of one extent."""
    if encoding == "text":
        return value.encode()
    if encoding == "base64":
        return base64.b64decode(value)
    if encoding == "zlib":
        return zlib.decompress(base64.b64decode(value))
    seed, _, length = value.partition(":")
    return hashlib.shake_256(seed.encode()).digest(int(length))


def parse(text: str) -> Tree:
    """Read a tree back from its text form."""
    entries = [json.loads(line) for line in text.splitlines() if line]
    return {entry["path"]: entry for entry in entries}


def dump(tree: Tree) -> str:
    """Return a tree as text."""
    return "".join(json.dumps(tree[path], sort_keys=True) + "\n" for path in sorted(tree))


def build(tree: Tree, top: str) -> None:
    """Make the tree in an existing directory; needs root for owners, devices and trusted attributes."""
    for path in sorted(tree, key=lambda p: p.split("/")):
        entry, place = tree[path], os.path.join(top, path) if path else top
        if path:
            _make(entry, place, top)
    for path in sorted(tree, reverse=True, key=lambda p: p.split("/")):
        _dress(tree[path], os.path.join(top, path) if path else top)


def _make(entry: dict[str, Any], place: str, top: str) -> None:
    kind = entry["kind"]
    if "link" in entry:
        os.link(os.path.join(top, entry["link"]), place, follow_symlinks=False)
    elif kind == "directory":
        os.makedirs(place, exist_ok=True)
    elif kind == "symlink":
        os.symlink(entry["to"], place)
    elif kind == "file":
        with open(place, "wb") as stream:
            for offset, encoding, value in entry["data"]:
                stream.seek(offset)
                stream.write(decode_extent(encoding, value))
            stream.truncate(entry["size"])
            if len(entry["data"]) > _IN_THE_INODE:
                # Only then it is known how many blocks the list of its parts takes.
                stream.flush()
                os.fsync(stream.fileno())
    else:
        kinds = {
            "fifo": stat.S_IFIFO,
            "socket": stat.S_IFSOCK,
            "character device": stat.S_IFCHR,
            "block device": stat.S_IFBLK,
        }
        os.mknod(place, kinds[kind] | 0o600, entry.get("device", 0))


def _dress(entry: dict[str, Any], place: str) -> None:
    if "link" in entry:
        return
    uid, gid = (int(part) for part in entry.get("owner", "0:0").split(":"))
    os.chown(place, uid, gid, follow_symlinks=False)
    if entry["kind"] != "symlink":
        os.chmod(place, int(entry["mode"], 8))
    for name, value in entry.get("xattrs", {}).items():
        os.setxattr(place, name, base64.b64decode(value), follow_symlinks=False)
    os.utime(place, ns=(entry.get("atime", entry["mtime"]), entry["mtime"]), follow_symlinks=False)


def capture(top: str, *, engine: bool = False) -> Tree:
    """Return what lies in a directory, without changing access times; the engine's own folders are left out."""
    tree: Tree = {}
    links: dict[int, str] = {}
    pending = [""]
    while pending:
        path = pending.pop()
        place = os.path.join(top, path) if path else top
        entry = _facts(path, place, links)
        tree[path] = entry
        if entry["kind"] == "directory":
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME)
            try:
                names = sorted(os.listdir(fd), reverse=True)
            except OSError:
                entry["unreadable"], names = True, []
            finally:
                os.close(fd)
            pending += [f"{path}/{name}" if path else name for name in names if engine or name != ENGINE]
    return tree


def _facts(path: str, place: str, links: dict[int, str]) -> dict[str, Any]:  # noqa: C901 - one branch per kind of entry
    facts = os.lstat(place)
    kind = kind_of(facts.st_mode).value
    entry: dict[str, Any] = {
        "path": path,
        "kind": kind,
        "mode": f"{stat.S_IMODE(facts.st_mode):04o}",
        "mtime": facts.st_mtime_ns,
    }
    # Reading a link's destination counts as access and cannot be avoided, so a link's access time tells nothing.
    if facts.st_atime_ns != facts.st_mtime_ns and kind != "symlink":
        entry["atime"] = facts.st_atime_ns
    if (facts.st_uid, facts.st_gid) != (0, 0):
        entry["owner"] = f"{facts.st_uid}:{facts.st_gid}"
    names = os.listxattr(place, follow_symlinks=False)
    xattrs = {n: base64.b64encode(os.getxattr(place, n, follow_symlinks=False)).decode() for n in sorted(names)}
    if xattrs:
        entry["xattrs"] = xattrs
    if kind == "symlink":
        entry["to"] = os.readlink(place)
    elif kind.endswith("device"):
        entry["device"] = facts.st_rdev
    elif kind == "file":
        if facts.st_nlink > 1:
            first = links.setdefault(facts.st_ino, path)
            if first != path:
                return {**entry, "link": first}
        entry["size"], entry["data"] = facts.st_size, _extents(place, facts.st_size)
    return entry


def _extents(place: str, size: int) -> list[list[object]]:
    found: list[list[object]] = []
    try:
        fd = os.open(place, os.O_RDONLY | os.O_NOATIME)
    except OSError as error:
        if error.errno != errno.ENOKEY:
            raise
        return found  # what lies behind a key that is not there
    try:
        position = 0
        while position < size:
            try:
                start = os.lseek(fd, position, os.SEEK_DATA)
            except OSError:
                break
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            found.append([start, *_encode(os.pread(fd, end - start, start))])
            position = end
    finally:
        os.close(fd)
    return found


def _encode(content: bytes) -> tuple[str, str]:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return "base64", base64.b64encode(content).decode()
    return (
        ("text", text)
        if text.isprintable() or text.replace("\n", "").isprintable()
        else ("base64", base64.b64encode(content).decode())
    )


def normal(tree: Tree) -> Tree:
    """Return a tree with every extent as its digest, so that filler and captured bytes compare."""
    made: Tree = {}
    for path, entry in tree.items():
        made[path] = dict(entry)
        if "data" in entry:
            made[path]["data"] = [
                [offset, hashlib.sha256(decode_extent(encoding, value)).hexdigest()] for offset, encoding, value in entry["data"]
            ]
    return made


def diff(before: Tree, after: Tree) -> str:
    """Return what changed, exactly: `- path`, `+ path <= where its content came from`, `~ path` with the changed members.

    Times of directories whose entries changed are left out, as nobody can promise them.
    """
    before, after = normal(before), normal(after)
    lines = []
    gone = {path: entry for path, entry in before.items() if path not in after}
    by_content = {_content(entry): path for path, entry in sorted(gone.items(), reverse=True) if "data" in entry}
    for path in sorted({*before, *after}):
        if path not in after:
            lines.append(f"- {path}")
        elif path not in before:
            origin = by_content.get(_content(after[path])) if "data" in after[path] else None
            lines.append(f"+ {path}" + (f" <= {origin}" if origin else ""))
            base = before[origin] if origin else {}
            lines += _changes(base, after[path], new_directory=after[path]["kind"] == "directory")
        else:
            same_names = _names(before, path) == _names(after, path)
            changes = _changes(before[path], after[path], new_directory=not same_names)
            lines += [f"~ {path}", *changes] if changes else []
    return "".join(f"{line}\n" for line in lines)


def _names(tree: Tree, path: str) -> set[str]:
    prefix = f"{path}/" if path else ""
    return {p[len(prefix) :].split("/")[0] for p in tree if p.startswith(prefix) and p}


def _content(entry: dict[str, Any]) -> str:
    return json.dumps([entry.get("size"), entry.get("data")])


def _changes(old: dict[str, Any], new: dict[str, Any], *, new_directory: bool) -> list[str]:
    ignored = {"path"} | ({"mtime", "atime"} if new_directory or (not old and new["kind"] == "file") else set())
    lines = []
    for name in sorted({*old, *new} - ignored):
        if old.get(name) != new.get(name):
            was = f"{json.dumps(old[name])} -> " if name in old else ""
            lines.append(f"    {name}: {was}{json.dumps(new.get(name))}")
    return lines


def timeless(found: str, started: int) -> str:
    """Return a difference in which what was written since a time (ns) has no time of its own."""
    shown = re.sub(r"(?<= )\d{19}\b", lambda at: "now" if int(at[0]) >= started else at[0], found)
    # Whether both times of what was just written are the same one is up to the clock of the file system.
    return shown.replace("    atime: now\n", "")
