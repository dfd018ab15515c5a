"""The page about EVE's conversions is made of its source, and what it names is there, and all of it."""

from __future__ import annotations

import re

import pytest

from migrations.eve import PACK
from tests.conformance.coverage import DISKS, PAGE, ROOT, described, disks, load, page

COVERAGE = load()
DEFECTS = 35
RECORDED = 65


def test_page_is_made_of_its_source() -> None:
    """Nobody has written to the page, and nobody has forgotten to make it anew."""
    assert PAGE.read_text(encoding="utf-8") == page(COVERAGE), "run: python -m tests.conformance.coverage"


def test_fixtures_are_there() -> None:
    """Every fixture that is named exists."""
    named = {name for shown in COVERAGE.shown for name in shown.fixtures}
    assert named - set(disks()) == set()


def test_tests_are_there() -> None:
    """Every test that is named exists, and so does every command."""
    for shown in COVERAGE.shown:
        for test in shown.tests:
            file, _, function = test.partition("::")
            assert re.search(rf"^def {function}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), test
        for command in shown.commands:
            target = command.removeprefix("make ")
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), command


def test_everything_is_shown() -> None:
    """Every case and every defect is shown by something, or says why it is not."""
    texts = [row.text for handler in COVERAGE.handlers for row in handler.rows] + [defect.name for defect in COVERAGE.defects]
    bare = [text for text, shown in zip(texts, COVERAGE.shown, strict=True) if not shown.cell]
    assert bare == []


def test_every_defect_is_there() -> None:
    """The defects are numbered without a gap."""
    assert [defect.number for defect in COVERAGE.defects] == list(range(1, DEFECTS + 1))


def test_every_migration_is_there() -> None:
    """Every migration of the pack does the work of some handler, or is a wish; no other is named."""
    named = {name for handler in COVERAGE.handlers for name in handler.migrations}
    assert named == {migration.id for migration in PACK.migrations}


def test_every_fixture_is_named() -> None:
    """There is no fixture of which nobody says what it is for."""
    named = {name for shown in COVERAGE.shown for name in shown.fixtures}
    assert set(disks()) - named == set()


@pytest.mark.parametrize("name", disks())
def test_fixture_is_described(name: str) -> None:
    """Each description says what is right and what EVE's converter does; a defect that it names has it as an example."""
    _, theirs = described(name)
    told = {
        int(number) for listed in re.findall(r"\bdefects? ([0-9][0-9, and]*)", theirs) for number in re.findall("[0-9]+", listed)
    }
    assert told - {defect.number for defect in COVERAGE.defects if name in defect.shown.fixtures} == set()


def test_every_recorded_scenario_has_a_fixture() -> None:
    """No disk on which EVE's converter was run is left out."""
    assert len(set(COVERAGE.recorded)) == RECORDED
    assert [name for name in COVERAGE.recorded if not (DISKS / name).is_dir()] == []
