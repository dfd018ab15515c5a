"""The stamp survives the way to the disk and back; a damaged one is refused by name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.engine.places import ENGINE_FOLDER
from upgradeconverter.engine.stamp import Section, Stamp, decode, encode, read_stamp, write_stamp
from upgradeconverter.errors import StampDamagedError
from upgradeconverter.preflight import LIMIT, checksum

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORDS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n"), min_size=1).filter(
    lambda word: word != "-"
)
# Any name that a file can have, but for line breaks: paths with one are not watched.
PATHS = st.binary(min_size=1).map(lambda name: os.fsdecode(name.replace(b"\n", b"").replace(b"\0", b"") or b"x"))
NUMBERS = st.integers(min_value=-(2**63), max_value=2**64)
SECTIONS = st.builds(
    Section,
    phase=WORDS,
    asked=WORDS | st.just(""),
    release=WORDS | st.just(""),
    config=WORDS | st.just(""),
    watched=st.lists(st.tuples(PATHS, st.none() | st.tuples(NUMBERS, NUMBERS, NUMBERS)), max_size=4).map(tuple),
    text=st.lists(WORDS, min_size=1, max_size=3).map("\n".join),
    json=WORDS,
    told=WORDS,
)
STAMPS = st.builds(
    Stamp,
    pack=WORDS,
    layout=WORDS,
    run=WORDS | st.just(""),
    sections=st.lists(SECTIONS, max_size=3).map(tuple),
)


def _small(*watched: tuple[str, tuple[int, int, int] | None]) -> Stamp:
    section = Section(phase="all", asked="", release="", config="", watched=watched, text="a\n  b", json="{}", told="{}")
    return Stamp(pack="eve", layout="design", run="1", sections=(section,))


SMALL = _small(("img", (1, 2, 3)))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PosixDisk]:
    """Return a disk with the engine's folder."""
    (tmp_path / ENGINE_FOLDER).mkdir()
    opened = PosixDisk.at(str(tmp_path))
    yield opened
    opened.close()


@settings(deadline=None, max_examples=100)
@given(stamp=STAMPS)
def test_round_trip(stamp: Stamp) -> None:
    """Whatever a stamp says is read back as it was."""
    assert decode(encode(stamp)) == stamp


@settings(deadline=None, max_examples=200)
@given(stamp=STAMPS, place=st.integers(min_value=0), byte=st.integers(0, 255), length=st.integers(0, 3))
def test_any_damage_is_refused(stamp: Stamp, place: int, byte: int, length: int) -> None:
    """Bytes changed, lost or added anywhere are seen, and are never another error or another stamp."""
    whole = encode(stamp)
    place %= len(whole)
    altered = whole[:place] + bytes([byte]) + whole[place + length :]
    if altered != whole:
        with pytest.raises(StampDamagedError):
            decode(altered)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["pack eve"], id="words missing"),
        pytest.param(["pack eve", "layout x", "run -", "phase all"], id="words of a section missing"),
        pytest.param(["pack eve", "layout x", "run -", "phase all", "watch 1 2 3"], id="no path"),
        pytest.param(["pack eve", "layout x", "run -", "phase all", "watch one 2 3 img"], id="no number"),
        pytest.param(["pack eve", "layout x", "run -", "phase all", "colour red"], id="unknown word"),
    ],
)
def test_whole_lines_that_say_nothing(lines: list[str]) -> None:
    """A sound checksum does not make sense of lines that say too little."""
    body = "\n".join(["upgradeconverter-stamp 1", *lines]).encode()
    with pytest.raises(StampDamagedError, match="not understood"):
        decode(body + b"\nend " + checksum(body) + b"\n")


def test_write_replaces(disk: PosixDisk) -> None:
    """There is one stamp, the last one written, whatever an earlier start left half written."""
    assert read_stamp(disk) is None
    with open(f"{disk.root_path}/{ENGINE_FOLDER}/stamp.new", "wb") as half:
        half.write(b"half")
    write_stamp(disk, SMALL)
    write_stamp(disk, SMALL)
    assert read_stamp(disk) == SMALL
    assert os.listdir(f"{disk.root_path}/{ENGINE_FOLDER}") == ["stamp"]


def test_stopped_between_old_and_new(disk: PosixDisk) -> None:
    """When the machine stops after the old stamp was taken away, the fresh one counts."""
    write_stamp(disk, SMALL)
    disk.rename(f"{ENGINE_FOLDER}/stamp", f"{ENGINE_FOLDER}/stamp.new")
    assert read_stamp(disk) == SMALL
    write_stamp(disk, _small())
    assert read_stamp(disk) == _small()


def test_too_much_left_alone(disk: PosixDisk) -> None:
    """A stamp that would be too large to be read back keeps its layout, and no phase counts as done."""
    many = tuple((f"img/{number:0250}", None) for number in range(LIMIT // 250))
    write_stamp(disk, _small(*many))
    assert read_stamp(disk) == Stamp(pack="eve", layout="design", run="1")


def test_foreign_giant(disk: PosixDisk) -> None:
    """Something large in the stamp's place is damage, not a failing disk."""
    with open(f"{disk.root_path}/{ENGINE_FOLDER}/stamp", "wb") as giant:
        giant.truncate(LIMIT + 1)
    with pytest.raises(StampDamagedError):
        read_stamp(disk)
