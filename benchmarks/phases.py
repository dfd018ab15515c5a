"""Runs the program and writes down how long each part of its work took: `phases.py REPORT ARGUMENT...`.

The parts are functions of the program that are timed from outside, so that it need not know of this. What one of them spends in
another one counts for that one only; what is spent in none is `the rest`: the start of the interpreter, imports, the lock, the
report.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# What is done, and which function does it: module, class or "", name.
PARTS = {
    "planning": (("engine.session", "Session", "make_plan"),),
    "copying": (("engine.batch", "Batch", "stage"),),
    "going over": (("engine.passing", "", "go_over"),),
    "syncing": (
        ("disk.native", "", "sync_filesystem"),
        ("disk.flushing", "Flusher", "finish"),
        ("journal.log", "Journal", "append"),
        ("disk.posix", "PosixDisk", "sync_directory"),
    ),
    "publishing": (("engine.executor", "Executor", "_flip"),),
    "putting away": (("engine.executor", "Executor", "_retire"),),
    "deleting": (("engine.executor", "Executor", "sweep"),),
    "noting": (("engine.convert", "", "_conclude"),),
}


class Stopwatch:
    """Adds up what is spent in each part, without what that spends in others."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.spent = dict.fromkeys(PARTS, 0.0)
        self._open: list[float] = []

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and is timed."""

        @functools.wraps(function)
        def wrapper(*arguments: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            self._open.append(0.0)
            try:
                return function(*arguments, **options)
            finally:
                whole = time.perf_counter() - begun
                self.spent[part] += whole - self._open.pop()
                if self._open:
                    self._open[-1] += whole

        return wrapper

    def watch(self) -> None:
        """Have all parts timed; AttributeError where one of them is not there any more."""
        for part, functions in PARTS.items():
            for module, kind, name in functions:
                holder: Any = importlib.import_module(f"upgradeconverter.{module}")
                holder = getattr(holder, kind) if kind else holder
                setattr(holder, name, self.timed(part, getattr(holder, name)))


def main(argv: Sequence[str]) -> int:
    """Run the program; returns its status."""
    from upgradeconverter.cli.main import main as program

    watch = Stopwatch()
    watch.watch()
    try:
        return program([*argv[1:]])
    finally:
        with open(argv[0], "w", encoding="utf-8") as stream:
            json.dump(watch.spent, stream)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
