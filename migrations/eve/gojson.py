"""JSON as EVE's agents read and write it, which is as Go's `encoding/json` does. Pure.

Written without spaces and without a last newline, members of objects in the order given; `<`, `>`, `&`, U+2028 and U+2029 are
escaped, and so are control characters, of which only newline, carriage return and tab have short forms. Numbers keep the digits
that they were read with. Source: documentation of Go's package `encoding/json`, and its `encode.go` up to Go 1.21, with which
EVE's releases are built.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPES |= {chr(number): f"\\u{number:04x}" for number in range(0x20) if chr(number) not in _ESCAPES}
_ESCAPES |= {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
# Half of a surrogate pair is no character, and has no UTF-8.
_ESCAPES |= {chr(number): "\ufffd" for number in range(0xD800, 0xE000)}
_TABLE = str.maketrans(_ESCAPES)


# Nothing that an agent keeps is nested like this, and what is can be written again.
_DEEPEST = 200
_DIGITS_OF_INT64 = 19


class Number(str):
    """A number, as it was written."""

    __slots__ = ()


def read(content: bytes) -> Any:
    """Return what a document says, numbers as `Number`; ValueError when Go would not read it either."""
    text = content.decode("utf-8", errors="replace")
    message = "nested too deeply"
    try:
        found = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError(message) from error
    level = [found]
    for _ in range(_DEEPEST):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return found
    raise ValueError(message)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _refuse(word: str) -> None:
    message = f"{word} is not JSON"
    raise ValueError(message)


def write(value: Any) -> bytes:
    """Return a value as a document; TypeError for what JSON does not have."""
    return "".join(_parts(value)).encode("utf-8")


def _parts(value: Any) -> list[str]:
    if isinstance(value, Number):
        return [value]
    if isinstance(value, str):
        return ['"', value.translate(_TABLE), '"']
    if value is None or isinstance(value, bool):
        return [{None: "null", True: "true", False: "false"}[value]]
    if isinstance(value, int):
        return [str(value)]
    if isinstance(value, dict):
        return _enclosed("{", [[*_parts(str(name)), ":", *_parts(member)] for name, member in value.items()], "}")
    if isinstance(value, list | tuple):
        return _enclosed("[", [_parts(member) for member in value], "]")
    message = f"{type(value).__name__} has no JSON"
    raise TypeError(message)


def _enclosed(begin: str, members: list[list[str]], end: str) -> list[str]:
    found = [begin]
    for number, member in enumerate(members):
        found += [","] if number else []
        found += member
    return [*found, end]


def sorted_map(members: dict[str, Any]) -> dict[str, Any]:
    """Return a map in the order in which Go writes one: sorted by the bytes of its keys."""
    return dict(sorted(members.items(), key=lambda member: member[0].encode("utf-8", errors="surrogatepass")))


def member(found: Any, name: str) -> Any:
    """Return a struct's member as Go finds it, by its name or else by the same letters in any case; None when there is none."""
    if not isinstance(found, dict):
        return None
    if name in found:
        return found[name]
    return next((found[other] for other in reversed(found) if other.casefold() == name.casefold()), None)


def whole_number(value: Any) -> int | None:
    """Return a number that is written as an integer; None for anything else."""
    digits = value.removeprefix("-") if isinstance(value, Number) else ""
    return int(value) if digits.isdecimal() and len(digits) <= _DIGITS_OF_INT64 else None
