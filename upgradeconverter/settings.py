"""Settings: flag > environment > kernel command line > file > default, each value knowing where it came from.

Must not know packs or the disk. Errors: BadSettingError names the setting, its origin, what was expected and what was found.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from upgradeconverter.errors import BadSettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_FILE = "/etc/upgradeconverter.toml"
_LARGEST = 1 << 20
_PREFIX = "UPGRADECONVERTER_"
_NAMES = ("PERSIST", "PACK", "TARGET", "READ_BACK", "WHEN_SHORT", "DEADLINE", "ON_FAILURE", "PACK_ROOT", "CONFIG")
_SWITCHES = ("off", "dry-run", "on")
_CHOICES = {"read_back": ("all", "sample", "none"), "when_short": ("refuse", "irreversible"), "on_failure": ("keep", "take-back")}
# chown(2): the largest number of 32 bits means "leave it as it is", so it is nobody's.
_MOST = (1 << 32) - 2
# What each name in the file may have for a value.
_FITTING = (
    (("pack", "target", "read_back", "when_short", "on_failure", "persist"), (str,)),
    (("strict", "trial", "quiet"), (bool,)),
    (("deadline",), (int, float)),
)
_LONGEST = 10**9
_SECONDS = "a number of seconds, or 0 for none"


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that may be chosen.

    Attributes:
        persist: root directory, None: the pack's own default.
        target: layout asked for, None: by the running system.
        source: layout from which `packs show` leads to the target.
        trial: keep the old layout until the new one is confirmed.
        when_short: what a trial does where both do not fit: `refuse` or `irreversible`.
        on_failure: what becomes of what a start that fails has done: `keep`, or `take-back`.
        report: directory that the last report is put into, None: none.
        deadline: seconds after the start after which nothing new is begun; 0 is none.
        quiet: whether nobody is shown how it goes.
        agents: (uid, gid) by owner agent; agents that are not named are root.
        outside: directories outside of the root that the pack reads, by its name for them, where they are not its own choice.
        options: what was chosen of what the pack lets people choose.
        annexes: where each place outside of the root is that state is taken from, by the pack's name for it.
        pack_roots: folders that hold packs, searched before the built-in ones.
        origins: where each value came from, by name.
        unknown: a sentence for each thing in the environment that looks like a setting and is none.
    """

    persist: str | None = None
    pack: str = "eve"
    target: str | None = None
    source: str | None = None
    dry_run: bool = False
    switched_off: bool = False
    strict: bool = False
    read_back: str = "none"
    trial: bool = False
    when_short: str = "refuse"
    on_failure: str = "keep"
    report: str | None = None
    deadline: float = 0.0
    quiet: bool = False
    agents: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    outside: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    annexes: Mapping[str, str] = field(default_factory=dict)
    pack_roots: tuple[str, ...] = ()
    file: str = DEFAULT_FILE
    origins: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def load(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    command_line: str,
    file: str = DEFAULT_FILE,
) -> Settings:
    """Put all sources together; a flag that is None was not given."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    named = environment.get(f"{_PREFIX}CONFIG")
    if named is not None and not os.path.exists(named):
        raise BadSettingError("the file", f"{_PREFIX}CONFIG", "a file that exists", named)
    file = named or file
    for origin, source in (
        (f"file {file}", _from_file(file)),
        ("kernel command line", _from_command_line(command_line)),
        ("environment", _from_environment(environment)),
        ("command line", _from_flags(flags)),
    ):
        for name, value in source.items():
            values[name], origins[name] = value, origin
    _check(values, origins)
    unknown = sorted(name for name in environment if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in _NAMES)
    told = tuple(f"{name} in the environment is no setting" for name in unknown)
    told += tuple(f"{word} on the kernel command line is no setting" for word in command_line.split() if _is_misspelt(word))
    return Settings(**values, file=file, origins=origins, unknown=told)


def _check(values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    for name in ("persist", "target", "pack"):
        if values.get(name) == "":
            raise BadSettingError(name, origins[name], "something", "")
    if "\0" in values.get("persist", ""):
        raise BadSettingError("persist", origins["persist"], "a path without NUL", str(values["persist"]))
    if not 0 <= values.get("deadline", 0) <= _LONGEST:
        raise BadSettingError("deadline", origins["deadline"], _SECONDS, str(values["deadline"]))
    for name, choices in _CHOICES.items():
        if values.get(name, choices[0]) not in choices:
            raise BadSettingError(name, origins[name], " or ".join(choices), str(values[name]))


def _is_misspelt(word: str) -> bool:
    name = word.partition("=")[0]
    return name.startswith("upgradeconverter") and name not in (
        "upgradeconverter",
        "upgradeconverter.target",
        "upgradeconverter.deadline",
    )


def _from_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in flags.items() if value is not None}
    if "deadline" in found:
        found["deadline"] = _seconds(found["deadline"], "command line")
    if "outside" in found:
        pairs = (text.partition("=") for text in found["outside"])
        found["outside"] = {name: _directory(name, path, "command line") for name, _, path in pairs}
    if "options" in found:
        pairs = (text.partition("=") for text in found["options"])
        found["options"] = {name: value for name, _, value in pairs}
    if "annexes" in found:
        pairs = (text.partition("=") for text in found["annexes"])
        found["annexes"] = {name: _place(name, path, "command line") for name, _, path in pairs}
    return found


def _place(name: str, path: object, origin: str) -> str:
    if isinstance(path, str) and path and "\0" not in path and name:
        return path
    raise BadSettingError(f"annex {name}", origin, "a name and a path", str(path))


def _directory(name: str, path: object, origin: str) -> str:
    if isinstance(path, str) and os.path.isabs(path) and "\0" not in path and name:
        return path
    raise BadSettingError(f"outside.{name}", origin, "a name and an absolute path", str(path))


def _seconds(text: str, origin: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise BadSettingError("deadline", origin, _SECONDS, text) from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("persist", "pack", "target", "read_back", "when_short", "on_failure", "deadline"):
        value = environment.get(f"{_PREFIX}{name.upper()}")
        if value:
            found[name] = _seconds(value, "environment") if name == "deadline" else value
    roots = environment.get(f"{_PREFIX}PACK_ROOT")
    if roots:
        found["pack_roots"] = tuple(roots.split(os.pathsep))
        for root in found["pack_roots"]:
            if not os.path.isdir(root):
                raise BadSettingError("pack_root", f"{_PREFIX}PACK_ROOT", "folders that exist", root)
    return found


def _from_command_line(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in text.split():
        name, _, value = word.partition("=")
        if name == "upgradeconverter":
            if value not in _SWITCHES:
                raise BadSettingError(name, "kernel command line", " or ".join(_SWITCHES), value)
            found["switched_off"], found["dry_run"] = value == "off", value == "dry-run"
        elif name == "upgradeconverter.target":
            found["target"] = value
        elif name == "upgradeconverter.deadline":
            found["deadline"] = _seconds(value, "kernel command line")
    return found


def _from_file(path: str) -> dict[str, Any]:
    if not os.path.exists(path):
        return {}
    import tomllib

    try:
        data = tomllib.loads(_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise BadSettingError("the file", f"file {path}", "readable TOML", str(error)) from error
    found: dict[str, Any] = {}
    for name, value in data.items():
        read = _TABLES.get(name)
        if read is not None and isinstance(value, dict):
            found[name] = {each: read(each, said, f"file {path}") for each, said in value.items()}
        elif any(name in names and type(value) in types for names, types in _FITTING):
            found[name] = value
        else:
            raise BadSettingError(name, f"file {path}", "a known name with a fitting value", str(value))
    return found


def _text(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as stream:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            message = "it is no regular file"
            raise ValueError(message)
        content = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        message = f"it is larger than {_LARGEST} bytes"
        raise ValueError(message)
    return content.decode("utf-8")


def _ids(agent: str, ids: object, origin: str) -> tuple[int, int]:
    if isinstance(ids, dict) and set(ids) == {"uid", "gid"}:
        uid, gid = ids["uid"], ids["gid"]
        if type(uid) is int and type(gid) is int and 0 <= uid <= _MOST and 0 <= gid <= _MOST:
            return uid, gid
    raise BadSettingError(f"agents.{agent}", origin, "a table with the numbers uid and gid", str(ids))


def _chosen(_: str, value: object, __: str) -> str:
    return str(value)


# What each table in the file has for values, by name, said where.
_TABLES: Mapping[str, Callable[[str, object, str], object]] = {
    "outside": _directory,
    "options": _chosen,
    "annexes": _place,
    "agents": _ids,
}
