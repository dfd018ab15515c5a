"""Trees with all that a file system can hold, and an observer of them that shares no code with the program.

The observer asks the tools that people would ask: find, stat, getfattr, getfacl, lsattr, sha256sum and the seek of xfs_io.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, TypeAlias

from tests.packs.eve_words import APP, OTHER_APP, SHA1, SHA2, V1, V2, app, device, drive, ref, response, volume
from tests.support.olddisk import make_disk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

THIRD_APP = "ffffffff-1111-4222-8333-444444444444"
V3 = "d3d3d3d3-1111-4222-8333-444444444444"
SHA3 = "ef" * 32
IMAGE = f"img/{SHA1}-{APP}.qcow2"
FIRST = f"runx/pods/prepared/{SHA2}-{OTHER_APP}"
SECOND = f"runx/pods/prepared/{SHA3}-{THIRD_APP}"
ITEMS = {
    IMAGE: f"vault/volumes/{V1}#0.qcow2",
    FIRST: f"vault/volumes/{V2}#0.container",
    SECOND: f"vault/volumes/{V3}#0.container",
}
# What the layout declares for the volumes themselves.
DECLARED = [(IMAGE, b"", "mode"), (IMAGE, b"", "owner"), (IMAGE, b"", "acl")]
CONFIG = response(
    device(
        app([drive(SHA1)], [ref(V1)]),
        app([drive(SHA2, "CONTAINER")], [ref(V2)], uuid=OTHER_APP),
        app([drive(SHA3, "CONTAINER")], [ref(V3)], uuid=THIRD_APP),
        volumes=[volume(V1), volume(V2), volume(V3)],
    ),
)
# Flags that each file system can set, on files and on directories; `C` only while a file is empty.
FLAGS = {"ext4": ("d", "A", "S", "s", "u"), "xfs": ("d", "A", "S"), "btrfs": ("d", "A", "S", "m")}
FOLDER_FLAGS = {"ext4": ("D", "T"), "xfs": ("d",), "btrfs": ("D", "C")}
_OWN_XATTR = "user.upgradeconverter."
_BLOCK = 1 << 16
_MOMENT = 1_594_000_000_000_000_000

Facts: TypeAlias = dict[str, str]
Seen: TypeAlias = dict[tuple[str, bytes], Facts]


def _tool(*words: str | bytes, stdin: bytes = b"") -> bytes:
    return subprocess.run(words, input=stdin, capture_output=True, check=True).stdout


# --- building ------------------------------------------------------------------------------------------------------------


def build(top: Path, kind: str) -> None:
    """Build an old disk whose items hold all that a file system of that kind can."""
    make_disk(top, CONFIG)
    first, second = (os.fsencode(top / item) for item in (FIRST, SECOND))
    os.makedirs(second + b"/rootfs/etc")
    image = os.fsencode(top / IMAGE)
    os.chown(image, 1000, 1000)
    _tool("setcap", "cap_net_raw=ep", image)
    _names(first + b"/rootfs")
    _kinds(first + b"/rootfs")
    _holes(first + b"/rootfs")
    _rights(first + b"/rootfs")
    _links(first + b"/rootfs", second + b"/rootfs")
    flagged = _flags(first + b"/rootfs", kind)
    for number, path in enumerate(sorted(_below(os.fsencode(top)), key=len, reverse=True)):
        # No two times are the same, to the nanosecond.
        moment = _MOMENT + number * 1_000_000_007
        os.utime(path, ns=(moment + 13, moment), follow_symlinks=False)
    for flag, path in flagged:
        _tool("chattr", f"+{flag}", path)


def build_beside_vault(top: Path, kind: str) -> None:
    """Build it in a root that is there, with a vault in it."""
    aside = top / "aside/persist"
    aside.parent.mkdir()
    build(aside, kind)
    for path in aside.iterdir():
        if path.name != "vault":
            path.rename(top / path.name)
    (aside / "vault").rmdir()
    aside.rmdir()
    aside.parent.rmdir()


def _below(top: bytes) -> list[bytes]:
    return [path for path in _tool("find", top, "-print0").split(b"\0") if path]


def _put(path: bytes, content: bytes = b"content") -> bytes:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        stream.write(content)
    return path


def _names(top: bytes) -> None:
    for name in (b"line\nbreak", b"\xff\xfe not utf-8", b"-rf", b"*", b" ", b"n" * 255, "\N{SNOWMAN}".encode() * 85):
        _put(top + b"/names/" + name, name)
        os.makedirs(top + b"/folders/" + name)
        os.symlink(name, top + b"/folders/" + name + b"/link")


def _kinds(top: bytes) -> None:
    os.makedirs(top + b"/kinds/empty")
    os.mkfifo(top + b"/kinds/fifo", 0o640)
    os.mknod(top + b"/kinds/socket", 0o140600)
    os.mknod(top + b"/kinds/whiteout", 0o020000, os.makedev(0, 0))
    os.mknod(top + b"/kinds/null", 0o020666, os.makedev(1, 3))
    os.mknod(top + b"/kinds/disk", 0o060660, os.makedev(7, 200))
    destinations = {b"dangling": b"/nowhere", b"up": b"../../../../../../etc", b"odd": b"\xff\n", b"long": b"x" * 1000}
    for name, destination in destinations.items():
        os.symlink(destination, top + b"/kinds/" + name)
    os.chown(top + b"/kinds/dangling", 1234, 4321, follow_symlinks=False)
    os.setxattr(top + b"/kinds/dangling", "trusted.overlay.redirect", b"/elsewhere", follow_symlinks=False)
    os.setxattr(top + b"/kinds/whiteout", "trusted.overlay.origin", b"\0\1\2", follow_symlinks=False)
    os.setxattr(top + b"/kinds/empty", "trusted.overlay.opaque", b"y")


def _holes(top: bytes) -> None:
    for name, parts, size in (
        (b"hole first", (2,), 3),
        (b"hole last", (0,), 4),
        (b"hole between", (0, 4), 5),
        (b"only a hole", (), 200),
        (b"no hole", (0, 1, 2), 3),
    ):
        with open(_put(top + b"/holes/" + name, b""), "r+b") as stream:
            for part in parts:
                stream.seek(part * _BLOCK)
                stream.write(name.ljust(64) * (_BLOCK // 64))
            stream.truncate(size * _BLOCK)
    _put(top + b"/holes/empty file", b"")
    _put(top + b"/holes/one byte", b"1")


def _rights(top: bytes) -> None:
    for name, mode, owner in (
        (b"setuid", 0o4755, 0),
        (b"setgid", 0o2755, 1000),
        (b"nobody's", 0o000, 65534),
        (b"both", 0o6711, 7),
    ):
        os.chown(_put(top + b"/rights/" + name), owner, owner + 1)
        os.chmod(top + b"/rights/" + name, mode)
    os.chown(_put(top + b"/rights/able"), 1000, 1000)
    _tool("setcap", "cap_net_raw,cap_sys_admin=ep", top + b"/rights/able")
    _tool("setfacl", "-m", "u:1234:rw,g:99:-,m::rwx", _put(top + b"/rights/acl"))
    # The first file is older than the default ACL and has none, the second inherits it.
    _put(top + b"/rights/shared/older")
    _tool("setfacl", "-d", "-m", "u:1234:rwx,g:99:r", top + b"/rights/shared")
    _put(top + b"/rights/shared/newer")
    os.makedirs(top + b"/rights/shared/inner")
    for name, mode in ((b"sticky", 0o1777), (b"group", 0o2770), (b"closed", 0o000)):
        os.makedirs(top + b"/rights/" + name)
        os.chmod(top + b"/rights/" + name, mode)
    with_xattrs = _put(top + b"/rights/xattrs")
    os.setxattr(with_xattrs, "user.binary", bytes(range(256)))
    os.setxattr(with_xattrs, "user.empty", b"")
    os.setxattr(with_xattrs, "user.large", b"v" * 1500)
    os.setxattr(with_xattrs, "trusted.hidden", b"t")
    os.setxattr(with_xattrs, "security.other", b"s")


def _links(first: bytes, second: bytes) -> None:
    one = _put(first + b"/links/one", b"three names")
    os.makedirs(first + b"/links/deep/er")
    os.link(one, first + b"/links/deep/er/two")
    os.link(one, first + b"/names/three")
    for name in (b"fifo", b"dangling", b"whiteout"):
        os.link(first + b"/kinds/" + name, first + b"/links/" + name, follow_symlinks=False)
    # Across two items.
    both = _put(first + b"/links/both", b"in two containers")
    os.link(both, second + b"/etc/both")
    os.link(both, second + b"/etc/both again")


def _flags(top: bytes, kind: str) -> list[tuple[str, bytes]]:
    found = []
    if kind == "btrfs":
        _tool("chattr", "+C", _put(top + b"/flags/no copy on write", b""))
        _put(top + b"/flags/no copy on write", b"written in place")
    found += [(flag, _put(top + b"/flags/file " + flag.encode(), b"f" * 100_000)) for flag in FLAGS[kind]]
    for flag in FOLDER_FLAGS[kind]:
        os.makedirs(top + b"/flags/folder " + flag.encode())
        found.append((flag, top + b"/flags/folder " + flag.encode()))
    _put(top + b"/flags/sealed/inner")
    found += [("i", top + b"/flags/sealed"), ("i", _put(top + b"/flags/immutable")), ("a", _put(top + b"/flags/log"))]
    return found


# --- observing -----------------------------------------------------------------------------------------------------------


def observe(items: Mapping[str, str]) -> Seen:
    """Return what the tools tell of the trees, by name and path inside; nothing of it depends on where they lie."""
    seen: Seen = {}
    inodes: dict[str, list[tuple[str, bytes]]] = {}
    for name, top in items.items():
        root = os.fsencode(top)
        for path in _below(root):
            inside = path[len(root) :]
            if inside == b"/snapshotid.txt":
                continue
            facts, inode = _stat(path)
            inodes.setdefault(inode, []).append((name, inside))
            seen[name, inside] = {**facts, **_attributes(path, facts["kind"]), **_content(path, facts["kind"])}
    for group in inodes.values():
        if len(group) > 1:
            for key in group:
                seen[key]["linked"] = repr(sorted(group))
    return seen


def _stat(path: bytes) -> tuple[Facts, str]:
    fields = ("kind", "mode", "owner", "size", "mtime", "atime", "links", "device", "inode")
    said = _tool("stat", "--printf", "%F|%a|%u:%g|%s|%.9Y|%.9X|%h|%t:%T|%i", path).decode().split("|")
    facts = dict(zip(fields, said, strict=True))
    if facts["kind"] == "directory":
        # What a directory takes, and how its subdirectories count, is the file system's own business.
        del facts["size"], facts["links"]
    if facts["kind"] == "symbolic link":
        # To read where it leads is an access.
        del facts["atime"]
    return facts, facts.pop("inode")


def _attributes(path: bytes, kind: str) -> Facts:
    lines = (
        _tool("getfattr", "-h", "-d", "-m", "-", "-e", "hex", "--absolute-names", path).decode("utf-8", "replace").splitlines()
    )
    facts = {"xattr " + line.split("=")[0]: line for line in lines if "=0x" in line and not line.startswith(("#", _OWN_XATTR))}
    if kind != "symbolic link":
        facts["acl"] = re.sub(r"(?m)^#.*\n", "", _tool("getfacl", "-n", "-p", path).decode("utf-8", "replace"))
    if kind == "directory" or kind.startswith("regular"):
        flags = _tool("lsattr", "-d", path).split(b" ")[0].decode()
        # Encryption, extents, index and inline data are how it is kept, not what it is.
        facts["flags"] = "".join(flag for flag in flags if flag not in "-EeIN")
        facts["project"] = _tool("lsattr", "-d", "-p", path).split()[0].decode()
    return facts


def _content(path: bytes, kind: str) -> Facts:
    if kind == "symbolic link":
        return {"to": os.fsdecode(_tool("readlink", "-n", path))}
    if not kind.startswith("regular"):
        return {}
    digest = _tool("sha256sum", "-b", path).lstrip(b"\\")[:64].decode()
    return {"digest": digest, "extents": _tool("xfs_io", "-r", "-c", "seek -r -a 0", path).decode()}


def differences(before: Seen, after: Seen, *, apart: Iterable[tuple[str, bytes, str]] = ()) -> list[str]:
    """Return what differs, apart from single facts that are declared to change."""
    declared = set(apart)
    gone = [f"{key} is gone" for key in before.keys() - after.keys()]
    new = [f"{key} is new" for key in after.keys() - before.keys()]
    changed = [
        f"{key} {fact}: {before[key].get(fact)} -> {after[key].get(fact)}"
        for key in before.keys() & after.keys()
        for fact in {*before[key], *after[key]}
        if before[key].get(fact) != after[key].get(fact) and (*key, fact) not in declared
    ]
    return sorted([*gone, *new, *changed])
