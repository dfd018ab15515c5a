"""Recovery decides every combination that can be on a disk, and the whole table is on record."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from upgradeconverter.engine.states import STATE_OF_RECORD
from upgradeconverter.journal.decide import Verdict, decide, decide_all, presence
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.plan import Shape

GOLDEN = Path(__file__).parent / "decide.txt"
OPEN = tuple(kind for kind in RecordKind if kind in STATE_OF_RECORD)
COMBINATIONS = tuple(
    presence(source=source, staged=staged, target=target, trash=trash)
    for source, staged, target, trash in itertools.product((True, False), repeat=4)
)


def rows() -> list[str]:
    """Return every combination that is not refused, one a line."""
    return [
        f"{shape:<6} {last:<9} {who} {decide(shape, last, who)}"
        for shape in Shape
        for last in OPEN
        for who in COMBINATIONS
        if decide(shape, last, who) is not Verdict.REFUSE
    ]


def test_presence() -> None:
    """Who exists is written in fixed order, and all sixteen words differ."""
    assert len(set(COMBINATIONS)) == 16
    assert presence(source=True, staged=True, target=True, trash=True) == "SGTX"
    assert presence(source=False, staged=True, target=False, trash=True) == ".G.X"


@pytest.mark.parametrize("shape", Shape)
@pytest.mark.parametrize("last", OPEN)
def test_every_combination_is_decided(shape: Shape, last: RecordKind) -> None:
    """For every shape and record of an open transaction each of the sixteen combinations has a verdict."""
    verdicts = [decide(shape, last, who) for who in COMBINATIONS]
    assert all(isinstance(verdict, Verdict) for verdict in verdicts)
    assert set(verdicts) > {Verdict.REFUSE}


def test_golden() -> None:
    """The table is the one on record; UPDATE_GOLDEN=1 records it anew."""
    text = "".join(f"{row}\n" for row in rows())
    if os.environ.get("UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(text, encoding="ascii")
    assert text == GOLDEN.read_text(encoding="ascii")


@pytest.mark.parametrize("shape", Shape)
@pytest.mark.parametrize(
    ("last", "verdict"),
    [
        pytest.param(RecordKind.BEGIN, Verdict.BACK, id="begin"),
        pytest.param(RecordKind.CONFIRMED, Verdict.FORTH, id="confirmed"),
        pytest.param(RecordKind.UNDO, Verdict.BACK, id="undo"),
    ],
)
def test_one_way_records(shape: Shape, last: RecordKind, verdict: Verdict) -> None:
    """Before anything was published and after an undo began it only goes back, once it counts only forth."""
    assert {decide(shape, last, who) for who in COMBINATIONS} - {Verdict.ALONE} == {verdict, Verdict.REFUSE}


@pytest.mark.parametrize("shape", [Shape.COPY, Shape.RENAME])
@pytest.mark.parametrize("last", OPEN)
def test_never_without_any_copy(shape: Shape, last: RecordKind) -> None:
    """When source, target and trash of moved data are all gone, that is no reason to leave the other steps half done."""
    assert decide(shape, last, "....") in (Verdict.ALONE, Verdict.BACK, Verdict.FORTH)
    assert decide(shape, last, "....") is not Verdict.BACK or last in (RecordKind.BEGIN, RecordKind.UNDO)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        pytest.param((), Verdict.FORTH, id="no steps"),
        pytest.param((Verdict.FORTH, Verdict.FORTH), Verdict.FORTH, id="all forth"),
        pytest.param((Verdict.FORTH, Verdict.BACK), Verdict.BACK, id="one back"),
        pytest.param((Verdict.FORTH, Verdict.ALONE), Verdict.FORTH, id="one alone"),
        pytest.param((Verdict.BACK, Verdict.ALONE), Verdict.BACK, id="one alone, one back"),
        pytest.param((Verdict.BACK, Verdict.REFUSE), Verdict.REFUSE, id="one refused, one back"),
        pytest.param((Verdict.REFUSE, Verdict.FORTH), Verdict.REFUSE, id="one refused"),
    ],
)
def test_transaction(verdicts: tuple[Verdict, ...], expected: Verdict) -> None:
    """One refusal refuses a transaction, and one step that must go back takes all the others with it."""
    assert decide_all(verdicts) is expected
