"""From whichever release to whichever later one: every piece lies where that release looks for it, even if it was interrupted."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.packs.eve_releases import FORMATS, LATEST, PIECES, RELEASES, Piece, disk
from tests.support.olddisk import checked, contents, fake_vault, set_times, stopping, unsynced, write
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.engine.places import JOURNAL
from upgradeconverter.errors import EXIT_DONE
from upgradeconverter.journal.log import Journal
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.entry import XATTR_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEPS = list(itertools.pairwise(RELEASES))
LEAPS = [(release, LATEST) for release in RELEASES[:-1]]
WAYS = [pytest.param(start, end, id=f"{start} to {end}") for start, end in dict.fromkeys(STEPS + LEAPS)]
# What 17.1 removes of what the device has.
STALE = b"zedagent/ConfigItemValueMap\nzedagent/ControllerCert\n"


@pytest.fixture(autouse=True)
def _unsynced() -> Iterator[None]:
    with unsynced(), fake_vault():
        yield


def _make(top: Path, release: str) -> Path:
    """Put a device together on which a release ran."""
    for path, content in disk(release).items():
        write(top / "persist" / path, content)
    (top / "persist/vault").mkdir(exist_ok=True)
    (top / "config").mkdir()
    write(top / "eve/non-persistent-pubsub-topics", STALE)
    for place in (top / "persist/vault/verifier/verified").glob("*"):
        place.chmod(0o400)
    for path, form in FORMATS.items() if release == "design" else ():
        os.setxattr(top / "persist" / path, f"{XATTR_PREFIX}format", form)
    set_times(top / "persist")
    return top


def _do(top: Path, *words: str, target: str) -> dict[str, Any]:
    outside = [word for name in ("config", "eve") for word in ("--outside", f"{name}={top / name}")]
    status, document = checked(*words, "-p", str(top / "persist"), "--target", target, *outside)
    assert status == EXIT_DONE, document["error"]
    return document


def _files(top: Path, path: str) -> dict[str, bytes]:
    """Return a file, or the files of a directory by the names inside."""
    place = top / "persist" / path
    if not place.is_dir():
        return {"": place.read_bytes()} if place.exists() else {}
    return {str(file.relative_to(place)): file.read_bytes() for file in sorted(place.rglob("*")) if file.is_file()}


def _said(piece: Piece, content: bytes) -> object:
    """Return what counts of a file that takes another form."""
    data = json.loads(content)
    if piece.name == "number":
        return data["BaseID"], data["AppID"], data.get("IfIdx", 0), data["Number"], data["CreateTime"]
    items = data["GlobalSettings"]
    names = ("timer.config.interval", "IntValue"), ("app.allow.vnc", "BoolValue"), ("debug.enable.ssh", "StrValue")
    return [items[key][member] for key, member in names]


def _is_before_design(release: str) -> bool:
    return RELEASES.index(release) < RELEASES.index("design")


def _check(top: Path, start: str, end: str, *, by_design: bool) -> None:
    """See that each piece of a device of one release lies where another one has it, and is what it was."""
    for piece in PIECES:
        before, after = piece.place(start), piece.place(end)
        if before is None or after is None:
            continue
        if piece.name in ("disk", "container") and _is_before_design(end):
            # No converter gave these other names before 5.7.0.
            after = before
        if by_design and after == piece.place("5.6.0"):
            # What the design has encrypted does not go back to where a release would look for it in the clear.
            after = piece.place("design") or after
        wanted, found = piece.files(end), _files(top, after)
        if piece.name in ("settings", "number") and end != "5.0.0":
            assert _said(piece, found[""]) == _said(piece, wanted[""]), piece.name
        elif piece.name == "container" and before.startswith("runx") and before != after:
            assert found == wanted | {"snapshotid.txt": before.rpartition("/")[2].encode()}
        else:
            assert found == wanted, piece.name
        assert before == after or not (top / "persist" / before).exists(), f"{before} is there still"


def _waves(top: Path) -> int:
    """Return how many transactions the last run had."""
    with closing(PosixDisk.at(str(top / "persist"))) as found:
        return len(Journal(found, JOURNAL).read(repair=False).transactions)


@pytest.mark.parametrize(("start", "end"), WAYS)
def test_every_piece_arrives(tmp_path: Path, start: str, end: str) -> None:
    """One start brings a disk of one release to another; the next one finds nothing to do, and verifying nothing wrong."""
    top = _make(tmp_path, start)
    before = contents(str(top / "persist"))
    _do(top, target=end)
    _check(top, start, end, by_design="design" in (start, end))
    assert _do(top, target=end)["outcome"] == "nothing-to-do"
    assert _do(top, "verify", target=end)["details"]["deviations"] == []
    assert not before - contents(str(top / "persist")) - Counter(), "some content is nowhere any more"


@pytest.mark.parametrize("start", RELEASES[:-1])
def test_release_by_release(tmp_path: Path, start: str) -> None:
    """A device that takes every release on the way ends like one that leaps."""
    top = _make(tmp_path, start)
    for end in RELEASES[RELEASES.index(start) + 1 :]:
        _do(top, target=end)
        _check(top, start, end, by_design=not _is_before_design(end) and RELEASES.index(start) <= RELEASES.index("design"))


@pytest.mark.parametrize(("start", "end"), WAYS)
def test_interrupted_at_every_wave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, end: str) -> None:
    """Killed once in each of its waves, the next start brings the disk to the same end."""
    monkeypatch.setattr("upgradeconverter.planning.fitting.WAVE_STEPS", 1)
    whole = _make(tmp_path / "whole", start)
    _do(whole, target=end)
    for wave in range(_waves(whole)):
        top = _make(tmp_path / str(wave), start)
        has_ended = False
        with stopping((RecordKind.COMMITTED, "before"), skip=wave):
            _do(top, target=end)
            has_ended = True
        assert not has_ended
        _do(top, target=end)
        _check(top, start, end, by_design="design" in (start, end))
        assert _do(top, "verify", target=end)["details"]["deviations"] == []
