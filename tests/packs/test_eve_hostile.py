"""A saved configuration may hold anything: it is understood or refused, and never names a place outside the layout."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from migrations.eve import PACK
from migrations.eve import eve_pb2 as pb
from migrations.eve.config import DeviceConfig
from migrations.eve.latches import LATCH_FOLDERS, read_latches
from migrations.eve.layouts import LAYOUTS
from migrations.eve.volumes import plan
from tests.packs.eve_words import (
    APP,
    NIL,
    OTHER_APP,
    SHA1,
    SHA2,
    V1,
    V2,
    app,
    container,
    device,
    documents,
    drive,
    legacy,
    ref,
    response,
    saved,
    state,
    tree,
    volume,
)
from tests.support.disktree import capture, diff
from tests.support.olddisk import CONFIG, TARGETS, checked, contents, make_disk, unsynced
from upgradeconverter.packs.api import Checkpoint, Move

FILES = (f"{SHA1}-{APP}.qcow2", f"{SHA1}-{APP}#1.raw", f"{SHA2}-{OTHER_APP}", f"{SHA2}-{APP}")
PLACES = re.compile(r"(vault|clear)/volumes/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}#[0-9]+(\.[a-z0-9]+)?")
IDS = st.sampled_from(
    [
        "",
        NIL,
        APP,
        OTHER_APP,
        V1,
        V1.upper(),
        V1.replace("-", ""),
        V2,
        f"{V1}\n",
        f"../{V1}",
        "../../etc/passwd",
        "/",
        "a\0b",
        "#",
        ".",
    ],
) | st.text(max_size=12)
SHAS = st.sampled_from([SHA1, SHA1.upper(), SHA2, "", "../x", "\0"]) | st.text(max_size=8)
NUMBERS = st.sampled_from([0, 1, 2**31, 2**32 - 1])
DRIVES = st.builds(drive, SHAS, st.sampled_from(["QCOW2", "CONTAINER", "RAW"]), IDS)
APPS = st.builds(
    lambda drives, refs, purge, uuid: app(drives, refs, purge=purge, uuid=uuid),
    st.lists(DRIVES, max_size=3),
    st.lists(st.builds(ref, IDS, NUMBERS), max_size=3),
    NUMBERS,
    IDS,
)
DEVICES = st.builds(
    lambda apps, volumes, trees: device(*apps, volumes=volumes, trees=trees),
    st.lists(APPS, max_size=3),
    st.lists(st.builds(lambda u, t, g, c: volume(u, t, g, clear=c), IDS, IDS, NUMBERS, st.booleans()), max_size=3),
    st.lists(st.builds(tree, IDS, SHAS), max_size=3),
)
# Field 1, of which the length says two gigabytes, the most that there is, or a number that never ends.
HUGE = (b"\x0a\xff\xff\xff\xff\x07", b"\x0a" + b"\xff" * 9 + b"\x01", b"\x0a" + b"\xff" * 64, b"\x0b" * 4096, b"\x0a\x02" * 4096)


def _is_harmless(checkpoint: Checkpoint) -> None:
    """Plan with a configuration for every layout; each target is a volume's name in a place for volumes, and nothing twice."""
    assert (checkpoint.content is None) == (checkpoint.problem is not None)
    for label in LAYOUTS:
        proposal = plan(state(checkpoint, legacy(*FILES), label))
        targets = [operation.target for operation in proposal.operations if isinstance(operation, Move)]
        sources = [operation.source for operation in proposal.operations if isinstance(operation, Move)]
        assert [target for target in targets if not PLACES.fullmatch(target)] == []
        assert len(set(targets)) == len(targets)
        assert len({*sources, *(skip.path for skip in proposal.skips)}) == len(FILES)


@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=400), tail=st.binary(max_size=16))
@example(content=HUGE[0], tail=b"")
@example(content=HUGE[1], tail=b"")
@example(content=HUGE[2], tail=b"")
@example(content=HUGE[3], tail=b"")
@example(content=HUGE[4], tail=b"")
@example(content=bytes(4096), tail=b"")
def test_random_bytes(content: bytes, tail: bytes) -> None:
    """Bytes that are no configuration are said to be none, also when they are signed, or follow a real one."""
    for bytes_of_file in (content, container(content), CONFIG + content + tail, container(CONFIG + content)):
        _is_harmless(PACK.read_checkpoint(documents({"checkpoint/lastconfig": bytes_of_file}), {}))


@settings(deadline=None, max_examples=150)
@given(place=st.integers(min_value=0), byte=st.integers(0, 255), length=st.integers(0, 4))
def test_damaged_configuration(place: int, byte: int, length: int) -> None:
    """A real configuration with bytes changed, lost or added is decoded to something harmless, or not at all."""
    for whole in (CONFIG, container(CONFIG)):
        cut = place % len(whole)
        damaged = whole[:cut] + bytes([byte]) + whole[cut + length :]
        _is_harmless(PACK.read_checkpoint(documents({"checkpoint/lastconfig": damaged}), {}))


@settings(deadline=None, max_examples=150)
@given(config=DEVICES)
def test_hostile_configuration(config: pb.EdgeDevConfig) -> None:
    """Identifiers with separators, NUL and line breaks, duplicates and extreme numbers lead to no place but the volumes'."""
    checkpoint = saved(config)
    assert isinstance(checkpoint.content, DeviceConfig)
    _is_harmless(checkpoint)


def test_same_volume_for_everybody() -> None:
    """Where many applications and many drives claim one volume, nobody gets it."""
    apps = [app([drive(SHA1), drive(SHA1)], [ref(V1), ref(V1)]), app([drive(SHA2, "CONTAINER")], [ref(V1)], uuid=OTHER_APP)]
    proposal = plan(state(saved(device(*apps, *apps, volumes=[volume(V1), volume(V1)])), legacy(FILES[0], FILES[2])))
    assert proposal.operations == ()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"[" * 60000, id="deep"),
        pytest.param(b'{"AppUUID":' * 9000, id="deep object"),
        pytest.param(b'{"PurgeCounter": ' + b"9" * 5000 + b"}", id="long number"),
        pytest.param(b"\xff\xfe\x00", id="no text"),
        pytest.param(b'{"AppUUID": 1, "ImageID": [], "Hash": {}}', id="other types"),
        pytest.param(b'{"AppUUID": "", "ImageID": "../x", "Hash": ""}', id="no identifiers"),
        pytest.param(b"null", id="null"),
    ],
)
def test_hostile_latches(content: bytes) -> None:
    """A latch that is none is left out with a warning by its name."""
    found, warnings = read_latches(documents({f"{folder}/x.json": content for folder in LATCH_FOLDERS}))
    assert found == {}
    assert len(warnings) == len(LATCH_FOLDERS)


@pytest.mark.timeout(120)
@settings(deadline=None, max_examples=12)
@given(config=DEVICES.map(response) | st.binary(max_size=100))
@example(config=HUGE[0])
@example(config=b"")
def test_whole_conversion(config: bytes) -> None:
    """Whatever the configuration says, verified files move, nothing is lost, twice is once, and rolling back gives what was."""
    with unsynced(), tempfile.TemporaryDirectory() as scratch:
        top = make_disk(Path(scratch) / "persist", config)
        before, inside = capture(top), contents(top)
        status, document = checked("-p", top, "--target", "latest")
        assert (status, document["outcome"]) == (0, "done")
        assert not inside - contents(top)
        assert (Path(top) / TARGETS[2]).exists()
        assert checked("-p", top, "--target", "latest")[1]["outcome"] == "nothing-to-do"
        assert checked("rollback", "-p", top)[0] == 0
        assert diff(before, capture(top)) == ""
