"""Makes the page that says what became of EVE's own conversions, its known defects, and the disks that show it.

The source is `coverage.toml` beside the fixtures, and their descriptions: `python -m tests.conformance.coverage` writes the page.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.cases import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = FIXTURES.parent
DISKS = FIXTURES / "eve"
PAGE = ROOT / "docs" / "eve-conversions.md"
ITS_CONVERTER = "EVE's converter: "

INTRODUCTION = """\
# EVE's conversions, one by one

Made by `python -m tests.conformance.coverage` from `fixtures/eve/coverage.toml` and the descriptions of the fixtures; changes
belong there.

LF-Edge EVE carries a converter of its own, written in Go, since 5.1.0. This page has each of its handlers and what does the same
work here, each of its known defects and what happens here instead, and every fixture with what is right for it and what EVE's
converter does. A fixture is a folder of [fixtures/eve](../fixtures/eve) with an old disk and the exact result, which
`tests/conformance` holds the program to: see [fixtures/README.md](../fixtures/README.md). What a disk at rest cannot show is
shown by a test that is named instead.
"""

HANDLERS = """\
## Handlers

What does the work of each of EVE's handlers, and where and why the result is another one.
"""

CASES = """\
## Cases of each handler

The cases that the handlers tell apart, and what shows them.
"""

DEFECTS = """\
## Known defects

The numbers are those that descriptions and comments use.
"""

DISKS_TOLD = """\
## Fixtures

On a *recorded* one EVE's converter was run, so that what it does there is known from its result; of the others it follows from
its source. Where the two columns differ, the first one has the reason.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What shows one row or one defect: fixtures, tests, commands, or the reason why nothing does."""

    fixtures: tuple[str, ...]
    tests: tuple[str, ...]
    commands: tuple[str, ...]
    reason: str

    @property
    def cell(self) -> str:
        """All of it, for one cell of a table."""
        names = [*self.fixtures, *(test.rpartition("/")[2] for test in self.tests), *self.commands]
        return " ".join(part for part in (", ".join(f"`{name}`" for name in names), self.reason) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case that a handler tells apart."""

    text: str
    shown: Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One handler of EVE's converter, or what it does not have."""

    name: str
    releases: str
    migrations: tuple[str, ...]
    difference: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """One known defect of EVE's converter."""

    number: int
    name: str
    ours: str
    shown: Shown


@dataclass(frozen=True, slots=True)
class Coverage:
    """All that the source says; `recorded` are the disks on which EVE's converter was run."""

    recorded: tuple[str, ...]
    handlers: tuple[Handler, ...]
    defects: tuple[Defect, ...]

    @property
    def shown(self) -> list[Shown]:
        """What shows any row or any defect."""
        return [row.shown for handler in self.handlers for row in handler.rows] + [defect.shown for defect in self.defects]


def load() -> Coverage:
    """Return the source; TypeError for a member that nothing here knows."""
    said = tomllib.loads((DISKS / "coverage.toml").read_text(encoding="utf-8"))
    handlers = tuple(_handler(**each) for each in said["handler"])
    return Coverage(tuple(said["recorded"]), handlers, tuple(_defect(**each) for each in said["defect"]))


def _handler(*, row: list[dict[str, Any]], migrations: list[str], **said: str) -> Handler:
    return Handler(rows=tuple(_row(**each) for each in row), migrations=tuple(migrations), **said)


def _row(*, text: str, **shown: Any) -> Row:
    return Row(text=text, shown=_shown(**shown))


def _defect(*, number: int, name: str, ours: str, **shown: Any) -> Defect:
    return Defect(number=number, name=name, ours=ours, shown=_shown(**shown))


def _shown(*, fixtures: Sequence[str] = (), tests: Sequence[str] = (), commands: Sequence[str] = (), reason: str = "") -> Shown:
    return Shown(fixtures=tuple(fixtures), tests=tuple(tests), commands=tuple(commands), reason=reason)


def disks() -> list[str]:
    """Return the names of all fixtures."""
    return sorted(place.name for place in DISKS.iterdir() if place.is_dir())


def described(name: str) -> tuple[str, str]:
    """Return what is right for a disk, and what EVE's converter does with it; ValueError where one of them is not said."""
    text = (DISKS / name / "about.md").read_text(encoding="utf-8")
    right, _, theirs = text.removeprefix(f"# {name}\n").partition(ITS_CONVERTER)
    if not right.strip() or not theirs.strip():
        raise ValueError(f"the description of {name} is not whole")
    return " ".join(right.split()), " ".join(theirs.split())


def page(coverage: Coverage) -> str:
    """Return the page."""
    handlers = (
        (handler.name, handler.releases, _code(handler.migrations) or "-", handler.difference) for handler in coverage.handlers
    )
    cases = (
        (handler.name, _code(handler.migrations) or "-", row.text, row.shown.cell)
        for handler in coverage.handlers
        for row in handler.rows
    )
    defects = ((str(defect.number), defect.name, defect.ours, defect.shown.cell) for defect in coverage.defects)
    told = ((_link(name), "yes" if name in coverage.recorded else "", *described(name)) for name in disks())
    parts = (
        INTRODUCTION,
        HANDLERS,
        _table(("handler", "releases of EVE", "migrations", "difference, and why"), handlers),
        CASES,
        _table(("handler", "migrations", "case", "shown by"), cases),
        DEFECTS,
        _table(("number", "EVE's converter", "here", "shown by"), defects),
        DISKS_TOLD,
        _table(("fixture", "recorded", "the disk, and what is right", "EVE's converter"), told),
    )
    return "\n".join(parts)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _link(name: str) -> str:
    return f"[`{name}`](../fixtures/eve/{name})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    Path(PAGE).write_text(page(load()), encoding="utf-8")
