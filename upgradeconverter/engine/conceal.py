"""Telling without naming: what only an encrypted vault knows is told by its place, never by its name. Pure.

Reports, history and stamp lie outside of the vault. What went into the vault came from outside, and its new name follows from the
saved configuration, which lies outside as well; so those names are told. What else lies in the vault is numbered.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# What a disk may have to say, which is no name.
_REASONS = frozenset(os.strerror(number) for number in errno.errorcode)
# Errors whose message may name a path as the walk through a tree sees it, which does not begin with that of the vault.
_RELATIVE = ("DiskRefused", "DiskFailed", "Boundary", "Halted", "Wedged", "Internal", "Paused")
# Said where names were left out.
HINT = "names that only the vault knows are not told outside of it; `upgradeconverter plan` on the device tells them"


class Concealer:
    """Replaces names inside a vault, each always by the same number.

    Args:
        vault: directory, relative to the root; empty: nothing is concealed.
        places: directories that the layouts name, which are no secret.
    """

    def __init__(self, vault: str, places: Collection[str]) -> None:
        """Begin to count."""
        self._vault, self._places = vault, frozenset(places)
        self._numbers: dict[str, int] = {}
        # Nobody can tell where a name ends and a sentence goes on, so all behind its beginning is left out.
        self._inside = re.compile(rf"(?<![\w.-])(?:/\S*?/)?{re.escape(vault)}/.*", re.DOTALL)

    @property
    def has_hidden(self) -> bool:
        """Whether anything was replaced."""
        return bool(self._numbers)

    def path(self, path: str) -> str:
        """Return a path without what only the vault knows of it."""
        if not self._vault or not path.startswith(f"{self._vault}/") or path in self._places:
            return path
        place = path
        while place and place not in self._places and place != self._vault:
            place = place.rpartition("/")[0]
        return f"{place or self._vault}/<hidden {self._numbers.setdefault(path, len(self._numbers) + 1)}>"

    def text(self, text: str, told: Iterable[str] = ()) -> str:
        """Return a sentence without such names, but for those that are `told` anyhow."""
        if not self._vault or f"{self._vault}/" not in text:
            return text
        kept = frozenset(told)
        if text in self._places or text in kept or not (found := self._inside.search(text)):
            return text
        rest = found[0]
        known = max(
            (path for path in (*kept, *self._places) if re.match(rf"{re.escape(path)}(?![^\s:;,'\")])", rest)),
            key=len,
            default="",
        )
        if known:
            return text[: found.start()] + known + self.text(rest[len(known) :], kept)
        reason = next((each for each in _REASONS if rest.endswith(f": {each}")), "")
        return text[: found.start()] + self.path(rest[rest.index(f"{self._vault}/") :]) + (f": {reason}" if reason else "")

    def document(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return a report without such names."""
        if not self._vault:
            return document
        told = {
            item["target"]
            for item in document["items"]
            if item["target"] and not self._is_inside(item["source"] or item["target"])
        }
        shown = {name: self._value(value, told) for name, value in document.items()}
        shown["items"] = [
            {**item, **{name: self._told(item[name], told) for name in ("source", "target")}} for item in document["items"]
        ]
        shown["skipped"] = [
            {**skip, "path": self._told(skip["path"], told), "detail": self._detail(skip, told)} for skip in document["skipped"]
        ]
        if shown["error"] is not None and shown["error"]["code"] in _RELATIVE:
            reason = next((each for each in _REASONS if each in document["error"]["message"]), "no reason that is known")
            shown["error"]["message"] = f"the message may name what only the vault knows; the disk said: {reason}"
        shown["warnings"] = [each for each in shown["warnings"] if not each.startswith(_RELATIVE)]
        if self.has_hidden:
            shown["warnings"] = [*shown["warnings"], HINT]
        return shown

    def _is_inside(self, path: str) -> bool:
        return path.startswith(f"{self._vault}/")

    def _told(self, path: str | None, told: Collection[str]) -> str | None:
        return path if path is None or path in told else self.path(path)

    def _detail(self, skip: dict[str, Any], told: Collection[str]) -> str:
        # Of what lies in the vault a detail may say more than a name.
        return "" if self._told(skip["path"], told) != skip["path"] else self.text(skip["detail"], told)

    def _value(self, value: Any, told: Collection[str]) -> Any:
        if isinstance(value, str):
            return self.text(value, told)
        if isinstance(value, list):
            return [self._value(each, told) for each in value]
        if isinstance(value, dict):
            return {name: self._value(each, told) for name, each in value.items()}
        return value
