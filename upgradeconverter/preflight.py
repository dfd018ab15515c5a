"""Decides, before anything else is imported, whether a start has nothing to do, and ends it at once then.

Trusts the stamp only together with its tripwires: no open journal leftovers, the same system and settings, and every watched path
exactly as it was. Whatever is not certain means: go on with the full program. Imports nothing but what is built into the
interpreter: `os` alone makes a bare start a tenth longer.
"""

import posix
import sys
import time

from upgradeconverter import __version__

# What may be known of packs and settings without loading any: default root, where the running release is written, and the
# settings file.
_DEFAULT_PACK = "eve"
_DEFAULT_PERSIST = "/persist"
_RELEASE_FILES = ("/run/eve-release", "/etc/eve-release")
_SETTINGS = "/etc/upgradeconverter.toml"
_PHASES = ("pre-vault", "post-vault", "all")
_VALUES = ("--persist", "--target", "--output", "--deadline", "--report", "--on-failure")

_FOLDER = ".upgradeconverter"
_LEFTOVERS = ("trash", "stage", "manifest", "waiting")
# Modulo a prime no change of a single byte gives the same remainder; a real hash would have to be imported.
_PRIME = (1 << 61) - 1

# The figures of a start: name, labels as they are written, value. What each is stands beside it.
Figure = tuple[str, str, str]
_FIGURES = {
    "exit_status": ("gauge", "Exit status of the last start."),
    "start_info": ("gauge", "Outcome of the last start."),
    "duration_seconds": ("gauge", "How long the last start took."),
    "items_total": ("counter", "Items of the last start, by what became of them."),
    "converted_bytes_total": ("counter", "Bytes of the items that the last start converted."),
    "left_items": ("gauge", "Items that the last start left alone, by reason."),
    "recovered_transactions_total": ("counter", "Transactions of earlier starts that the last start settled."),
}

HEADER = "upgradeconverter-stamp 1"
LIMIT = 16 << 20


def leave_if_idle(argv: "list[str]") -> None:
    """Say what there is to say and end the process with status 0 if nothing is to be done; else return.

    `argv` holds the words after the program's name. Nothing is flushed or called at exit: nothing else has begun.
    """
    begun = time.monotonic()
    said = find_answer(argv)
    if said is not None:
        if not (words := words_of(argv) or {})["--report"]:
            _say(f"{said}\n".encode("utf-8", "backslashreplace"))
        elif not _leave_report(words["--report"], words["phase"], said, time.monotonic() - begun):
            return
        posix._exit(0)  # noqa: SLF001 - what `os` calls so as well


def find_answer(argv: "list[str]") -> "str | None":
    """Return the finished report if this start has nothing to do; None when the full program has to look."""
    words = words_of(argv)
    if words is None or words["--output"] not in ("text", "json") or not words["--deadline"].isdecimal():
        return None
    config = signature(_SETTINGS)
    if config and not words["--persist"]:
        return None  # the settings may name another root
    if any(name.startswith(b"UPGRADECONVERTER_") for name in posix.environ):
        return None
    if any(word.startswith("upgradeconverter") for word in read_words("/proc/cmdline")):
        return None
    expected = {
        "pack": _DEFAULT_PACK,
        "asked": words["--target"],
        "release": read_release(_RELEASE_FILES)[0],
        "config": config,
    }
    persist = words["--persist"] or _DEFAULT_PERSIST
    form = "told" if words["--report"] else words["--output"]
    return answer(persist, words["phase"], expected, form=form)


def words_of(argv: "list[str]") -> "dict[str, str] | None":
    """Return phase and options of a plain boot invocation; None for any other."""
    found = {"phase": "all", "--persist": "", "--target": "", "--output": "text", "--deadline": "0"}
    found |= {"--report": "", "--on-failure": "keep"}
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if word in _PHASES:
            found["phase"] = word
        elif name in _VALUES:
            found[name] = value if equals else next(words, "")
        elif word in ("--trial", "--quiet"):
            continue  # where there is nothing to do there is nothing to try, and nothing to show
        elif word == "-p":
            found["--persist"] = next(words, "")
        else:
            return None
        if word not in _PHASES and not found[name if word != "-p" else "--persist"]:
            return None
    return found


def _say(text: bytes) -> None:
    try:
        while text:
            text = text[posix.write(1, text) :]
    except OSError:
        pass  # nobody listens; there was nothing to do all the same


def _leave_report(directory: str, phase: str, report: str, seconds: float) -> bool:
    """Leave report and figures of a start with nothing to do; False where that is refused."""
    info = f'outcome="nothing-to-do",version="{__version__}"'
    rows = [("exit_status", "", "0"), ("start_info", info, "1"), ("duration_seconds", "", f"{seconds:.6f}")]
    left: dict[str, int] = {}
    for piece in report.split('"reason": "')[1:]:
        reason = piece.partition('"')[0]
        left[reason] = left.get(reason, 0) + 1
    rows += [("left_items", f'reason="{reason}"', str(number)) for reason, number in sorted(left.items())]
    try:
        if _exists(f"{directory}/{phase}.failed"):
            posix.unlink(f"{directory}/{phase}.failed")
        _put(f"{directory}/{phase}.json", f"{report}\n", 0o600)
        _put(f"{directory}/{phase}.prom", figures_text(phase, rows), 0o644)
    except OSError:
        return False
    return True


def _put(path: str, content: str, mode: int) -> None:
    fresh = f"{path}.{posix.getpid()}"
    fd = posix.open(fresh, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC, mode)
    try:
        posix.fchmod(fd, mode)
        rest = content.encode("utf-8", "backslashreplace")
        while rest:
            rest = rest[posix.write(fd, rest) :]
        posix.rename(fresh, path)
    except OSError:
        posix.unlink(fresh)
        raise
    finally:
        posix.close(fd)


def figures_text(phase: str, rows: "list[Figure]") -> str:
    """Return figures in the text format of Prometheus; those of one name stand together."""
    lines: list[str] = []
    last = ""
    for name, labels, value in rows:
        if name != last:
            kind, meaning = _FIGURES[name]
            lines += [f"# HELP upgradeconverter_{name} {meaning}", f"# TYPE upgradeconverter_{name} {kind}"]
        last = name
        lines.append(f'upgradeconverter_{name}{{phase="{phase}"{labels and ","}{labels}}} {value}')
    return "\n".join(lines) + "\n"


def answer(persist: str, phase: str, expected: "dict[str, str]", *, form: str) -> "str | None":
    """Return the finished report if the stamp proves that a way of starting has nothing to do, else None.

    `persist` is the root directory; `expected` holds `pack`, the target that was `asked` for, what the system's `release` files
    say and the signature of the settings file (`config`), each possibly empty. `form` is `text`, `json`, or `told`,
    JSON without names that only the vault knows.
    """
    try:
        lines = lines_of(_content(f"{persist}/{_FOLDER}", "stamp"))
        if lines is None:
            return None
        for name in _LEFTOVERS:
            if _exists(f"{persist}/{_FOLDER}/{name}"):
                return None
        return _read(lines, persist, phase, expected, form=form)
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
    lines = _text(body).split("\n")
    return lines[1:] if lines[0] == HEADER else None


def _text(content: bytes) -> str:
    return content.decode(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())  # what `os.fsdecode` does


def _content(folder: str, name: str) -> bytes:
    # Neither the folder nor the file may be a link that leads out of the root, and a FIFO must not hold up the boot.
    folder_fd = posix.open(folder, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW)
    try:
        flags = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK
        try:
            # That it was read is nothing to be written to the disk.
            fd = posix.open(name, flags | posix.O_NOATIME, dir_fd=folder_fd)
        except PermissionError:
            fd = posix.open(name, flags, dir_fd=folder_fd)
    finally:
        posix.close(folder_fd)
    try:
        return posix.read(fd, LIMIT)
    finally:
        posix.close(fd)


def _read(lines: "list[str]", persist: str, phase: str, expected: "dict[str, str]", *, form: str) -> "str | None":
    here, texts, json, told = "", [], "", ""
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
        elif here == phase and word == "told":
            told = value
    return {"json": json, "told": told or json}.get(form, "\n".join(texts)) or None


def _same(value: str, persist: str) -> bool:
    inode, mtime, ctime, path = value.split(" ", 3)
    facts = posix.lstat(_place(persist, path))
    return (facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns) == (int(inode), int(mtime), int(ctime))


def _place(persist: str, path: str) -> str:
    return path if path.startswith("/") else f"{persist}/{path}"


def _exists(path: str) -> bool:
    try:
        posix.lstat(path)
    except FileNotFoundError:
        return False
    return True


def signature(path: str) -> str:
    """Return inode, mtime and ctime of a file as one text, empty where there is none."""
    try:
        facts = posix.stat(path)
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
        fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK)
    except OSError:
        return []
    try:
        return posix.read(fd, 1 << 16).decode("utf-8", "replace").split()
    except OSError:
        return []
    finally:
        posix.close(fd)
