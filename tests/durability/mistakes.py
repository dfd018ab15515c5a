"""Mistakes that the sweep has to catch: each is built into the program for a while."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from upgradeconverter.disk import content
from upgradeconverter.disk.manifest import data_chunks
from upgradeconverter.engine import steps as handlers
from upgradeconverter.engine import undo
from upgradeconverter.model.plan import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from upgradeconverter.engine.work import Work
    from upgradeconverter.model.plan import Step


def _take_for_holes(patch: pytest.MonkeyPatch) -> None:
    """What cannot be read is taken for a hole."""

    def readable_chunks(fd: int, size: int) -> list[int]:
        found: list[int] = []
        with suppress(OSError):
            found = data_chunks(fd, size)
        return found

    patch.setattr(content, "has_no_hole", lambda *_: False)
    patch.setattr(content, "data_chunks", readable_chunks)


def _lose_the_order(patch: pytest.MonkeyPatch) -> None:
    """A source goes just before its copy has its name."""
    flip = handlers.flip

    def hasty(work: Work, step: Step) -> None:
        if step.shape is Shape.COPY and step.method == "copy":
            work.disk.remove(step.source or "")
        flip(work, step)

    patch.setattr(handlers, "flip", hasty)


def _forget_the_way_back(patch: pytest.MonkeyPatch) -> None:
    """Nothing is ever put back."""
    patch.setattr(undo, "back", lambda *_, **__: None)


MISTAKES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "holes": _take_for_holes,
    "no order": _lose_the_order,
    "no way back": _forget_the_way_back,
}


@contextmanager
def mistaken(name: str) -> Iterator[None]:
    """Build a mistake into the program while the body runs."""
    with pytest.MonkeyPatch.context() as patch:
        if name:
            MISTAKES[name](patch)
        yield
