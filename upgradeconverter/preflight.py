"""Decides, before anything else is imported, whether a start has nothing to do.

Trusts the stamp only together with its tripwires: no open journal leftovers, the same system and settings, and every watched path
exactly as it was. Whatever is not certain means: go on with the full program. Imports nothing but `os`.
"""

import os

_FOLDER = ".upgradeconverter"
_HEADER = "upgradeconverter-stamp 1"
_LEFTOVERS = ("trash", "stage", "manifest", "waiting")
_LIMIT = 16 << 20


def answer(persist: str, phase: str, expected: "dict[str, str]", *, as_json: bool) -> "str | None":
    """Return the finished report if the stamp proves that a way of starting has nothing to do, else None.

    `persist` is the root directory; `expected` holds `pack`, the target that was `asked` for, what the system's `release` files
    say and the signature of the settings file (`config`), each possibly empty.
    """
    try:
        fd = os.open(f"{persist}/{_FOLDER}/stamp", os.O_RDONLY | os.O_NOFOLLOW)
        try:
            lines = os.fsdecode(os.read(fd, _LIMIT)).split("\n")
        finally:
            os.close(fd)
        if lines[0] != _HEADER or lines[-2:] != ["end", ""]:
            return None
        for name in _LEFTOVERS:
            if _exists(f"{persist}/{_FOLDER}/{name}"):
                return None
        return _read(lines[1:-2], persist, phase, expected, as_json=as_json)
    except (OSError, ValueError):
        return None


def _read(lines: "list[str]", persist: str, phase: str, expected: "dict[str, str]", *, as_json: bool) -> "str | None":
    here, texts, json = "", [], ""
    for line in lines:
        word, _, value = line.partition(" ")
        if word == "phase":
            here = value
        elif (word in expected and (not here or here == phase) and value != (expected[word] or "-")) or (
            here == phase
            and ((word == "absent" and _exists(f"{persist}/{value}")) or (word == "watch" and not _same(value, persist)))
        ):
            return None
        elif here == phase and word == "text":
            texts.append(value)
        elif here == phase and word == "json":
            json = value
    return (json if as_json else "\n".join(texts)) or None


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


def signature(path: str) -> str:
    """Return inode, mtime and ctime of a file as one text, empty where there is none."""
    try:
        facts = os.stat(path)
    except OSError:
        return ""
    return f"{facts.st_ino} {facts.st_mtime_ns} {facts.st_ctime_ns}"


def read_release(files: "tuple[str, ...]") -> "tuple[str, str]":
    """Return the first word of the first release file that can be read, and that file; both empty where there is none."""
    for path in files:
        words = read_words(path)
        if words:
            return words[0], path
    return "", ""


def read_words(path: str) -> "list[str]":
    """Return the words of a small file of the system, none where it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return []
    try:
        return os.read(fd, 1 << 16).decode("utf-8", "replace").split()
    except OSError:
        return []
    finally:
        os.close(fd)
