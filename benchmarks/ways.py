"""The ways to do the work of a case: ours, and the others, each as the commands that somebody would give."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

from .devices import TARGET
from .equal import ALL, CONTENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from .cases import Case
    from .devices import Moved
    from .running import Ended

OURS = "upgradeconverter"
_GO = str(Path(__file__).resolve().parent / "goorder.py")
# Says which program is measured; without it the one beside this interpreter is.
PROGRAM = "UPGRADECONVERTER_BENCH_PROGRAM"
Commands = list[list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a rival has to do: entries that go into a directory which is there."""

    root: str
    sources: list[str]
    into: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way; `keeps` is what its result has to have in common with what was there before."""

    name: str
    commands: Callable[[Work], Commands]
    about: str = ""
    keeps: frozenset[str] = ALL


def work_of(case: Case, root: Path) -> Work:
    """Return the work of a case as rivals do it."""
    sources = sorted(glob(f"{root}/{case.sources}"))
    return Work(root=str(root), sources=sources, into=f"{root}/{case.into}", how=case.way)


def place_of(way: Way, case: Case, moved: Moved) -> str:
    """Return where a way leaves a file or tree, relative to the root: only ours gives it its new name."""
    if way.name == OURS:
        return moved.target
    return f"{case.into}/{os.path.basename(moved.source)}"


def program() -> str:
    """Return the program that is measured."""
    return os.environ.get(PROGRAM) or str(Path(sys.executable).parent / "upgradeconverter")


def _ours(work: Work) -> Commands:
    return [[program(), "post-vault", "-p", work.root, "--target", TARGET, "--output", "json"]]


def _then_remove(*copy: str) -> Callable[[Work], Commands]:
    def commands(work: Work) -> Commands:
        sync = ["sync", "-f", work.root]
        return [[*copy, *work.sources, f"{work.into}/"], sync, ["rm", "-rf", *work.sources], sync]

    return commands


def _mv(work: Work) -> Commands:
    return [["mv", *work.sources, f"{work.into}/"], ["sync", "-f", work.root]]


def _go(work: Work) -> Commands:
    return [[sys.executable, "-I", "-S", _GO, work.how, work.into, *work.sources]]


WAYS = {
    each.name: each
    for each in (
        Way(name=OURS, commands=_ours, about="journalled, one start of the program"),
        Way(
            name="cp",
            commands=_then_remove("cp", "-a", "--sparse=always"),
            about="cp -a --sparse=always; sync -f; rm -rf; sync -f",
        ),
        Way(name="rsync", commands=_then_remove("rsync", "-aHAXS"), about="rsync -aHAXS; sync -f; rm -rf; sync -f"),
        Way(name="mv", commands=_mv, about="mv; sync -f: a power cut before that loses what was moved"),
        Way(
            name="go-order",
            commands=_go,
            about="the order of work of EVE's own converter, enacted: fsync per file, no holes, no attributes",
            keeps=CONTENT,
        ),
    )
}


def refusal(way: Way, ended: Ended) -> str:
    """Return why the work was not done, "" where it was, by what the commands said."""
    if not ended.status and way.name != OURS:
        return ""
    try:
        document = json.loads(ended.output) if way.name == OURS else None
    except ValueError:
        document = None
    if document is None:
        lines = ended.errors.strip().splitlines() or [f"status {ended.status}"]
        return f"failed ({lines[-1][:200]})"
    left = [f"{each['reason']}: {each['detail']}" for each in document["skipped"]]
    if left or ended.status or document["outcome"] != "done":
        return f"refused ({(left or [str(document['error'] or document['outcome'])])[0]})"
    return ""
