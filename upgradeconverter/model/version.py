"""Layout versions: ordered labels of how state lies on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from upgradeconverter.errors import NoPathError, UnknownLayoutError, UnknownNewerLayoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Range(Struct, frozen=True):
    """Layouts from `since` on and before `until`; without `until`, all that follow."""

    since: str
    until: str | None = None


class LayoutOrder(Struct, frozen=True, kw_only=True):
    """The layouts of one pack, oldest first.

    Attributes:
        labels: every layout that the pack knows; the first is what a disk without a stamp carries.
        resolve: turns what people and systems say (`latest`, a release such as `16.2.0`) into a label, or None.
    """

    labels: tuple[str, ...]
    resolve: Callable[[str], str | None]

    def label_of(self, word: str) -> str:
        """Return the label that a word of people or of the system stands for; UnknownLayoutError otherwise."""
        label = self.resolve(word)
        if label is None:
            raise UnknownLayoutError(word, self.labels)
        return label

    def position(self, label: str) -> int:
        """Return the place of a label found on a disk; UnknownNewerLayoutError if this pack does not know it."""
        if label not in self.labels:
            raise UnknownNewerLayoutError(label, self.labels)
        return self.labels.index(label)

    def check_forward(self, source: str, target: str) -> None:
        """Raise NoPathError when the target lies before the source."""
        if self.position(target) < self.position(source):
            raise NoPathError(source, target)

    def reached(self, since: str, target: str) -> bool:
        """Return whether the target layout is `since` or a later one."""
        return self.position(target) >= self.position(since)

    def covers(self, ranges: Iterable[Range], target: str) -> bool:
        """Return whether the target layout lies in one of the ranges."""
        return any(
            self.reached(each.since, target) and (each.until is None or not self.reached(each.until, target)) for each in ranges
        )
