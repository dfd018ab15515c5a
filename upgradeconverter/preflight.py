"""Decides, before anything else is imported, whether a start has nothing to do.

Trusts the stamp only together with its tripwires: no open journal leftovers, the same system and settings, and every watched path
exactly as it was. Whatever is not certain means: go on with the full program. Imports nothing but `os`.
"""

import os

_FOLDER = ".upgradeconverter"
_LEFTOVERS = ("trash", "stage", "manifest", "waiting")
# Modulo a prime no change of a single byte gives the same remainder; a real hash would have to be imported.
_PRIME = (1 << 61) - 1

HEADER = "upgradeconverter-stamp 1"
LIMIT = 16 << 20


def answer(persist: str, phase: str, expected: "dict[str, str]", *, as_json: bool) -> "str | None":
    """Return the finished report if the stamp proves that a way of starting has nothing to do, else None.

    `persist` is the root directory; `expected` holds `pack`, the target that was `asked` for, what the system's `release` files
    say and the signature of the settings file (`config`), each possibly empty.
    """
    try:
        lines = lines_of(_content(f"{persist}/{_FOLDER}", "stamp"))
        if lines is None:
            return None
        for name in _LEFTOVERS:
            if _exists(f"{persist}/{_FOLDER}/{name}"):
                return None
        return _read(lines, persist, phase, expected, as_json=as_json)
    except (OSError, ValueError):
        return None


def checksum(body: bytes) -> bytes:
    """Return what the last line of a stamp says of all lines before it."""
    return b"%016x" % (int.from_bytes(body, "big") % _PRIME)


def lines_of(content: bytes) -> "list[str] | None":
    """Return the lines of a stamp between its first and its last, or None unless it is whole and unaltered."""
    body, mark, last = content.rpartition(b"\nend ")
    if not mark or last != checksum(body) + b"\n":
        return None
    lines = os.fsdecode(body).split("\n")
    return lines[1:] if lines[0] == HEADER else None


def _content(folder: str, name: str) -> bytes:
    # Neither the folder nor the file may be a link that leads out of the root, and a FIFO must not hold up the boot.
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder_fd)
    finally:
        os.close(folder_fd)
    try:
        return os.read(fd, LIMIT)
    finally:
        os.close(fd)


def _read(lines: "list[str]", persist: str, phase: str, expected: "dict[str, str]", *, as_json: bool) -> "str | None":
    here, texts, json = "", [], ""
    for line in lines:
        word, _, value = line.partition(" ")
        if word == "phase":
            here = value
        elif (word in expected and (not here or here == phase) and value != (expected[word] or "-")) or (
            here == phase
            and ((word == "absent" and _exists(_place(persist, value))) or (word == "watch" and not _same(value, persist)))
        ):
            return None
        elif here == phase and word == "text":
            texts.append(value)
        elif here == phase and word == "json":
            json = value
    return (json if as_json else "\n".join(texts)) or None


def _same(value: str, persist: str) -> bool:
    inode, mtime, ctime, path = value.split(" ", 3)
    facts = os.lstat(_place(persist, path))
    return (facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns) == (int(inode), int(mtime), int(ctime))


def _place(persist: str, path: str) -> str:
    return path if path.startswith("/") else f"{persist}/{path}"


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
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        return os.read(fd, 1 << 16).decode("utf-8", "replace").split()
    except OSError:
        return []
    finally:
        os.close(fd)
