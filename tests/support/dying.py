"""Lets the program die just before the n-th thing that it does to a disk."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from upgradeconverter.disk.posix import PosixDisk

if TYPE_CHECKING:
    from collections.abc import Iterator

# The verbs of `Disk` that change something or make it durable.
VERBS = (
    "make_directory",
    "write_file",
    "make_link",
    "make_hard_link",
    "copy",
    "stream",
    "rename",
    "set_attributes",
    "remove",
    "remove_directory",
    "append",
    "truncate",
    "sync_directory",
    "sync_file",
    "sync_filesystem",
)


class ProcessDeathError(BaseException):
    """The process is gone: no handler of the program may catch this, and nothing cleans up after it."""


@contextmanager
def dying(at: int | None = None) -> Iterator[list[str]]:
    """Let the body die before its `at`-th effective verb, counted from 0, or only count; yields the verbs so far."""
    done: list[str] = []

    def counted(verb: str) -> Any:
        original = getattr(PosixDisk, verb)

        def call(*arguments: Any, **options: Any) -> Any:
            if len(done) == at:
                raise ProcessDeathError
            done.append(verb)
            return original(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for verb in VERBS:
            patch.setattr(PosixDisk, verb, counted(verb))
        try:
            yield done
        except ProcessDeathError:
            return
