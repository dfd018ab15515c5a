"""The preflight says that there is nothing to do only when a whole stamp proves it; it never fails and never waits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from upgradeconverter import preflight
from upgradeconverter.engine.stamp import Section, Stamp, encode
from upgradeconverter.preflight import answer, read_release, read_words, signature

if TYPE_CHECKING:
    from pathlib import Path

    from pyfakefs.fake_filesystem import FakeFilesystem

FOLDER = ".upgradeconverter"
RUN_RELEASE, ETC_RELEASE = FILES = ("/run/eve-release", "/etc/eve-release")
SETTINGS = "/etc/upgradeconverter.toml"
ANSWERS = ("text of it", "[]")
ON_THE_SAME_DISK = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def says_nothing_to_do(top: Path, *, phase: str = "all", **question: str) -> bool:
    """Ask the preflight about a root; it gives both answers or none."""
    expected = {"pack": "eve", "asked": "", "release": "", "config": ""} | question
    said = tuple(answer(str(top), phase, expected, form=form) for form in ("text", "json"))
    assert said in (ANSWERS, (None, None))
    return said == ANSWERS


@pytest.fixture
def stamped(tmp_path: Path) -> Path:
    """Return a root whose stamp proves that there is nothing to do."""
    top = tmp_path / "persist"
    (top / FOLDER).mkdir(parents=True)
    (top / "img").mkdir()
    facts = os.lstat(top / "img")
    watched = (("img", (facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns)), ("runx", None))
    conditions = {"asked": "", "release": "", "config": "", "text": ANSWERS[0], "json": ANSWERS[1], "told": ANSWERS[1]}
    sections = tuple(Section(phase=phase, watched=watched, **conditions) for phase in ("pre-vault", "all"))
    (top / FOLDER / "stamp").write_bytes(encode(Stamp(pack="eve", layout="design", run="0" * 16, sections=sections)))
    return top


def test_whole_stamp_is_believed(stamped: Path) -> None:
    """As long as everything is as the stamp says, there is nothing to do."""
    assert says_nothing_to_do(stamped)
    assert says_nothing_to_do(stamped, phase="pre-vault")


@pytest.mark.parametrize(
    "question",
    [
        pytest.param({"phase": "other"}, id="phase"),
        pytest.param({"asked": "latest"}, id="target"),
        pytest.param({"pack": "other"}, id="pack"),
        pytest.param({"release": "16.12.0"}, id="release"),
        pytest.param({"config": "1 2 3"}, id="settings"),
    ],
)
def test_other_questions_are_not_answered(stamped: Path, question: dict[str, str]) -> None:
    """A stamp says nothing about another phase, target, pack or system."""
    assert not says_nothing_to_do(stamped, **question)


@pytest.mark.parametrize(
    "name", ["img/new", "runx", f"{FOLDER}/trash", f"{FOLDER}/stage", f"{FOLDER}/manifest", f"{FOLDER}/waiting"]
)
def test_tripwires(stamped: Path, name: str) -> None:
    """Whatever appears where the stamp watches, or was left by a run that stopped, means a closer look."""
    (stamped / name).mkdir()
    assert not says_nothing_to_do(stamped)


def test_watched_path_is_gone(stamped: Path) -> None:
    """A watched path that has vanished means a closer look."""
    (stamped / "img").rmdir()
    assert not says_nothing_to_do(stamped)


@pytest.mark.parametrize("place", [FOLDER, f"{FOLDER}/stamp"])
def test_links_are_not_followed(stamped: Path, place: str) -> None:
    """A stamp outside the root proves nothing, however whole it is."""
    away = stamped.parent / "away"
    (stamped / place).rename(away)
    (stamped / place).symlink_to(away)
    assert not says_nothing_to_do(stamped)


@pytest.mark.parametrize("kind", ["fifo", "directory", "nothing", "empty"])
def test_no_stamp_at_all(stamped: Path, kind: str) -> None:
    """What is no file is no stamp, and a FIFO does not hold up the boot."""
    place = stamped / FOLDER / "stamp"
    place.unlink()
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    elif kind == "empty":
        place.touch()
    assert not says_nothing_to_do(stamped)


@ON_THE_SAME_DISK
@given(place=st.integers(min_value=0), damage=st.sampled_from(["flip", "remove", "insert", "cut"]), byte=st.integers(1, 255))
def test_any_damage_of_the_stamp_is_seen(stamped: Path, place: int, damage: str, byte: int) -> None:
    """One byte changed, lost or added anywhere, or any tail lost, and the stamp proves nothing."""
    file = stamped / FOLDER / "stamp"
    whole = file.read_bytes()
    place %= len(whole)
    before, after = whole[:place], whole[place:]
    altered = {
        "flip": before + bytes([after[0] ^ byte]) + after[1:],
        "remove": before + after[1:],
        "insert": before + bytes([byte]) + after,
        "cut": before,
    }[damage]
    try:
        file.write_bytes(altered)
        assert not says_nothing_to_do(stamped)
    finally:
        file.write_bytes(whole)


@ON_THE_SAME_DISK
@given(content=st.binary(max_size=200) | st.text().map(str.encode) | st.binary().map(lambda b: b"upgradeconverter-stamp 1\n" + b))
def test_arbitrary_bytes_are_no_stamp(stamped: Path, content: bytes) -> None:
    """Whatever lies there, nothing is raised and nothing is believed."""
    file = stamped / FOLDER / "stamp"
    whole = file.read_bytes()
    try:
        file.write_bytes(content)
        assert not says_nothing_to_do(stamped)
    finally:
        file.write_bytes(whole)


@settings(deadline=None, max_examples=30)
@given(persist=st.text(), phase=st.text(), target=st.text(), release=st.text())
def test_arbitrary_questions(persist: str, phase: str, target: str, release: str) -> None:
    """No path, phase, target or release makes the preflight fail."""
    expected = {"pack": "eve", "asked": target, "release": release, "config": ""}
    assert answer(f"/nowhere/{persist}", phase, expected, form="json") is None


@pytest.fixture
def system(fs: FakeFilesystem, monkeypatch: pytest.MonkeyPatch) -> FakeFilesystem:
    """Let the preflight see a made-up system."""
    monkeypatch.setattr(preflight, "posix", os)
    return fs


@pytest.mark.parametrize(
    ("run", "etc", "expected"),
    [
        pytest.param(b"16.12.0-kvm-amd64\n", b"5.7.1", "16.12.0-kvm-amd64", id="first file wins"),
        pytest.param(None, b"5.7.1\n", "5.7.1", id="second file"),
        pytest.param(b" \n", b"5.7.1", "5.7.1", id="an empty file says nothing"),
        pytest.param(b"5.7.1 of today\nmore", None, "5.7.1", id="first word"),
        pytest.param(b"\xff\xfe", None, "\ufffd\ufffd", id="no text"),
        pytest.param(None, None, "", id="none"),
    ],
)
def test_release_files(system: FakeFilesystem, run: bytes | None, etc: bytes | None, expected: str) -> None:
    """The first release file that says anything names the release by its first word."""
    for path, content in zip(FILES, (run, etc), strict=True):
        if content is not None:
            system.create_file(path, contents=content)
    assert read_release(FILES)[0] == expected


def test_release_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A directory or a FIFO in place of a release file is passed over at once."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("5.7.1\n", encoding="utf-8")
    assert read_release(tuple(str(tmp_path / name) for name in ("folder", "fifo", "file"))) == ("5.7.1", str(tmp_path / "file"))


def test_words_of_a_file(system: FakeFilesystem) -> None:
    """The words of the kernel command line are read as they are; without /proc there are none."""
    assert read_words("/proc/cmdline") == []
    system.create_file("/proc/cmdline", contents="quiet\nupgradeconverter=off ")
    assert read_words("/proc/cmdline") == ["quiet", "upgradeconverter=off"]


def test_signature_of_settings(system: FakeFilesystem) -> None:
    """A settings file has a signature, which another file in its place does not have; none has the empty one."""
    assert signature(SETTINGS) == ""
    system.create_file(SETTINGS, contents='target = "5.7.0"\n')
    before = signature(SETTINGS)
    system.remove(SETTINGS)
    system.create_file(SETTINGS, contents='target = "5.7.0"\n')
    assert before
    assert signature(SETTINGS) != before
