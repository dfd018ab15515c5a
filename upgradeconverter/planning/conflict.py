"""The target exists already: what happens, as a table. Pure."""

from __future__ import annotations

from enum import Enum


class Resolution(Enum):
    """What becomes of the source."""

    PROCEED = "nothing is in the way"
    RETIRE_SOURCE = "the new place has the same content already"
    LEAVE = "the new place has other content; both stay"


_TABLE: dict[tuple[bool, bool], Resolution] = {
    # (something is at the target, it has the same content)
    (False, False): Resolution.PROCEED,
    (True, True): Resolution.RETIRE_SOURCE,
    (True, False): Resolution.LEAVE,
}


def resolve(*, occupied: bool, same: bool) -> Resolution:
    """Return what to do with a source whose target may be occupied; nothing is ever overwritten."""
    return _TABLE[occupied, same and occupied]
