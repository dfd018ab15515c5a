"""Decides, before anything else is imported, whether a start has nothing to do.

Trusts the stamp only together with its tripwires: no open journal leftovers, the same system, and every watched path exactly as
it was. Whatever is not certain means: go on with the full program. Imports nothing but `os`.
"""

import os

_FOLDER = ".upgradeconverter"
_HEADER = "upgradeconverter-stamp 1"
_LEFTOVERS = ("trash", "stage", "manifest", "open")


def nothing_to_do(persist: str, phase: str, target: str, pack: str, release: str) -> bool:
    """Return whether the stamp proves that a phase has nothing to do.

    `persist` is the root directory; the phase `all` asks for every phase of the stamp; `target` is what was asked for explicitly
    and `release` what the system's release files say, both possibly empty.
    """
    try:
        fd = os.open(f"{persist}/{_FOLDER}/stamp", os.O_RDONLY | os.O_NOFOLLOW)
        try:
            lines = os.fsdecode(os.read(fd, 1 << 20)).split("\n")
        finally:
            os.close(fd)
        if lines[0] != _HEADER or lines[-2:] != ["end", ""]:
            return False
        for name in _LEFTOVERS:
            if _exists(f"{persist}/{_FOLDER}/{name}"):
                return False
        return _holds(lines[1:-2], persist, phase, (target or "-", pack, release or "-"))
    except (OSError, ValueError):
        return False


def _holds(lines: "list[str]", persist: str, phase: str, expected: "tuple[str, str, str]") -> bool:
    target, pack, release = expected
    phases = []
    for line in lines:
        word, _, value = line.partition(" ")
        if word == "phase":
            phases.append(value)
        elif (
            (word == "pack" and value != pack)
            or (word == "release" and value != release)
            or (word == "asked" and value != target)
            or (word == "absent" and _exists(f"{persist}/{value}"))
            or (word == "watch" and not _same(value, persist))
        ):
            return False
    return phase in phases or (phase == "all" and "all" in phases)


def _same(value: str, persist: str) -> bool:
    inode, mtime, ctime, path = value.split(" ", 3)
    facts = os.lstat(f"{persist}/{path}")
    return (facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns) == (int(inode), int(mtime), int(ctime))


def _exists(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def read_release(files: "tuple[str, ...]") -> str:
    """Return the first word of the first release file that can be read, or an empty text."""
    for path in files:
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            words = os.read(fd, 4096).decode("utf-8", "replace").split()
        finally:
            os.close(fd)
        if words:
            return words[0]
    return ""
