"""A disk that can be looked at but not changed: reading verbs pass, every other verb is a mistake of the caller (D6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from msgspec import Struct

if TYPE_CHECKING:
    from upgradeconverter.disk.port import Disk

_READING = frozenset(
    {
        "find",
        "entries",
        "read",
        "part",
        "tail",
        "survey",
        "mounts",
        "sha256",
        "manifest",
        "same_content",
        "domain",
        "space",
        "vault_state",
        "is_open",
        "used_by",
        "lived_in",
        "is_immutable",
        "clock",
    },
)


class EffectInDryRunError(Exception):
    """A dry run tried to change something: a mistake in this program; nothing was changed."""


class DryRunDisk(Struct, frozen=True):
    """Wraps a disk; `read_only(disk)` gives it the type of the port."""

    disk: Disk

    def __getattr__(self, verb: str) -> object:
        """Pass a reading verb through; refuse every other one when it is called."""
        if verb in _READING:
            return getattr(self.disk, verb)

        def refuse(*_: object, **__: object) -> NoReturn:
            raise EffectInDryRunError(verb)

        return refuse


def read_only(disk: Disk) -> Disk:
    """Return a disk on which a dry run can do no harm."""
    return DryRunDisk(disk.silent())  # type: ignore[return-value]
