import json
import warnings

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from migrations.eve import PACK
from migrations.eve import eve_pb2 as pb
from migrations.eve.checkpoint import CANDIDATES, read_checkpoint
from migrations.eve.config import ContentTree, DeviceConfig, Volume
from migrations.eve.latches import LATCH_FOLDERS
from tests.packs.eve_words import (
    APP,
    DEVICE,
    IMAGE,
    NIL,
    SHA1,
    T1,
    V1,
    app,
    container,
    device,
    documents,
    drive,
    ref,
    response,
    saved,
    tree,
    volume,
)
from upgradeconverter.packs.api import Checkpoint, Document, Reason

MAIN = CANDIDATES[0]
FULL = device(app([drive(SHA1.upper())], [ref()], purge=3), volumes=[volume(tree=T1, clear=True)], trees=[tree()])
TINY = device()
LATCHES = LATCH_FOLDERS[0]


def content_of(checkpoint: Checkpoint) -> DeviceConfig:
    """Return what was read, which must be there."""
    assert checkpoint.problem is None
    assert isinstance(checkpoint.content, DeviceConfig)
    return checkpoint.content


def latch(**changes: object) -> bytes:
    """Return a latch file."""
    return json.dumps({"AppUUID": APP, "ImageID": IMAGE, "Hash": SHA1.upper(), "PurgeCounter": 2} | changes).encode()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(FULL.SerializeToString(), id="before 4.6"),
        pytest.param(response(FULL), id="4.6 to 8.8"),
        pytest.param(container(response(FULL)), id="container, whole hash"),
        pytest.param(container(response(FULL), algo=1, sender=16), id="container, half hash"),
    ],
)
def test_every_release_is_read(content: bytes) -> None:
    """Whatever release saved the configuration, the same comes out, in lower case."""
    config = content_of(read_checkpoint(documents({MAIN: content})))
    assert [(a.uuid, a.purge, a.drives[0].digest, a.drives[0].form) for a in config.apps] == [(APP, 3, SHA1, "qcow2")]
    assert config.volumes == {V1: Volume(generation=0, clear_text=True, content_tree=T1)}
    assert config.content_trees == {T1: ContentTree(digest=SHA1, form="qcow2")}


def test_tiny_container_is_no_empty_response() -> None:
    """A small ASCII container, which parses as a response without anything, is read as what it is."""
    small = device(app())
    content = container(pb.ConfigResponse(config=small).SerializeToString(), sender=16, algo=1)
    assert content.isascii()
    misread = pb.ConfigResponse.FromString(content)
    assert not misread.config.apps
    assert [a.uuid for a in content_of(read_checkpoint(documents({MAIN: content}))).apps] == [APP]


@pytest.mark.parametrize("config", [TINY, device(uuid=DEVICE.upper())])
@pytest.mark.parametrize("wrap", [lambda c: c.SerializeToString(), response, lambda c: container(response(c))])
def test_device_without_apps_is_readable(config: pb.EdgeDevConfig, wrap: object) -> None:
    """A freshly onboarded device has a configuration, although an empty one."""
    assert callable(wrap)
    assert content_of(read_checkpoint(documents({MAIN: wrap(config)}))).apps == ()


BROKEN = [
    pytest.param(b"", id="empty (defect 2)"),
    pytest.param(b"\0" * 512, id="zeros"),
    pytest.param(response(FULL)[:-20], id="truncated"),
    pytest.param(response(device(uuid="")), id="no device"),
    pytest.param(response(device(uuid=NIL)), id="nil device"),
    pytest.param(container(b"garbage"), id="garbage in a container"),
    pytest.param(container(FULL.SerializeToString()), id="no response in a container"),
    pytest.param(container(response(FULL)) + b"\x48\x01", id="container with an unknown field"),
    pytest.param(container(response(FULL)) + container(response(TINY)), id="two containers"),
    pytest.param(b"{}", id="text"),
]


@pytest.mark.parametrize("content", BROKEN)
def test_undecodable_is_said_to_be_so(content: bytes) -> None:
    """What is no configuration is unreadable, and the detail names the file."""
    checkpoint = read_checkpoint(documents({MAIN: content}))
    assert (checkpoint.content, checkpoint.problem) == (None, Reason.CHECKPOINT_UNREADABLE)
    assert MAIN in checkpoint.detail


@pytest.mark.parametrize("content", BROKEN)
@pytest.mark.parametrize("fallback", CANDIDATES[1:])
def test_fallback_is_used_with_a_warning(content: bytes, fallback: str) -> None:
    """An undecodable file is passed over in favour of the next one, and the report says so."""
    checkpoint = read_checkpoint(documents({MAIN: content, fallback: response(FULL)}))
    assert len(content_of(checkpoint).apps) == 1
    assert checkpoint.source == fallback
    assert any(MAIN in warning for warning in checkpoint.warnings)
    assert any(fallback in warning for warning in checkpoint.warnings)


def test_candidates_have_an_order() -> None:
    """The first candidate that decodes is the one, without a warning when it is the very first."""
    everything = {path: response(FULL) for path in CANDIDATES}
    for path in CANDIDATES:
        checkpoint = read_checkpoint(documents(everything))
        assert checkpoint.source == path
        assert bool(checkpoint.warnings) is (path != MAIN)
        del everything[path]


def test_missing_and_unreadable_differ() -> None:
    """No file at all is another problem than files that are useless."""
    missing = {path: Document(path=path, content=None, problem="missing") for path in CANDIDATES}
    assert read_checkpoint({}).problem is Reason.CHECKPOINT_MISSING
    assert read_checkpoint(missing).problem is Reason.CHECKPOINT_MISSING
    folder = missing | {MAIN: Document(path=MAIN, content=None, problem="a directory, not a regular file")}
    checkpoint = read_checkpoint(folder | documents({CANDIDATES[3]: b"x"}))
    assert checkpoint.problem is Reason.CHECKPOINT_UNREADABLE
    assert f"{MAIN}: a directory, not a regular file" in checkpoint.detail
    assert f"{CANDIDATES[3]}: not a device configuration" in checkpoint.detail


def test_inputs_cover_what_is_read() -> None:
    """The pack asks the engine for every candidate and both folders of latches."""
    asked = {(wanted.path, wanted.directory) for wanted in PACK.inputs}
    assert {(path, False) for path in CANDIDATES} < asked
    assert {path for path, directory in asked if directory} == set(LATCH_FOLDERS)


def test_app_without_uuid_is_left_out() -> None:
    """An application that nobody can name does no harm (defect 16)."""
    nameless = pb.AppInstanceConfig(displayname="nameless", drives=[pb.Drive()])
    config = content_of(saved(device(nameless, app(uuid="nonsense"), app(uuid=NIL), app())))
    assert [a.uuid for a in config.apps] == [APP]


def test_unknown_format_numbers() -> None:
    """A format that legacy releases could not write is as good as none."""
    future = pb.Drive(image=pb.Image(sha256=SHA1, iformat=pb.PVC))
    assert content_of(saved(device(app([future])))).apps[0].drives[0].form == "fmtunknown"
    beyond = response(device(app([drive()]))).replace(b"\x20\x03", b"\x20\x63")
    config = content_of(read_checkpoint(documents({MAIN: beyond})))
    assert config.apps[0].drives[0].form == "fmtunknown"


def test_latches_are_read() -> None:
    """Latches of both topics count: by application and image, and by content tree."""
    files = {
        f"{LATCHES}/{APP}.{IMAGE}.2.json": latch(),
        "status/volumemgr/AppAndImageToHash/x.json": latch(AppUUID=NIL, ImageID=T1, PurgeCounter=0),
        f"{LATCHES}/restarted": b"",
        "elsewhere/x.json": latch(ImageID=V1),
    }
    checkpoint = saved(device(trees=[tree(sha="")]), files)
    config = content_of(checkpoint)
    assert dict(config.latches) == {(APP, IMAGE, 2): SHA1, ("", T1, 0): SHA1}
    assert config.content_trees[T1].digest == SHA1
    assert checkpoint.warnings == ()


@pytest.mark.parametrize("main", [{}, {f"{LATCHES}/x.json": b""}])
def test_latch_backup(main: dict[str, bytes]) -> None:
    """A missing or empty latch is read from its backup."""
    checkpoint = saved(TINY, main | {f"{LATCHES}/x.json.bak": latch()})
    assert dict(content_of(checkpoint).latches) == {(APP, IMAGE, 2): SHA1}


def test_latch_of_old_release_has_no_counter() -> None:
    """Before 5.3.0 a latch had no purge counter; that means zero."""
    old = json.dumps({"AppUUID": APP, "ImageID": IMAGE, "Hash": SHA1}).encode()
    assert dict(content_of(saved(TINY, {f"{LATCHES}/x.json": old})).latches) == {(APP, IMAGE, 0): SHA1}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"\xff\xfe",
        b"[" * 60000,
        latch(Hash=7),
        latch(Hash=None),
        latch(ImageID=NIL),
        latch(ImageID=7),
        latch(AppUUID=None),
        latch(PurgeCounter="2"),
        latch(PurgeCounter=True),
        latch(PurgeCounter=None),
    ],
)
def test_bad_latches_are_ignored(content: bytes) -> None:
    """A useless latch costs a warning that names it, never the run."""
    checkpoint = saved(TINY, {f"{LATCHES}/x.json": content})
    assert dict(content_of(checkpoint).latches) == {}
    assert any(f"{LATCHES}/x.json" in warning for warning in checkpoint.warnings)


@given(st.binary(max_size=300))
@example(b"\x0b\x0c")
@example(b"\x0b")
@example(b"\x0c")
@example(b"\x0a\x04\x0b\x0b\x0c\x0c")
def test_no_bytes_are_a_traceback(content: bytes) -> None:
    """Any bytes at all are a configuration, unreadable, or a useless latch; nothing is raised or printed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint = read_checkpoint(documents({MAIN: content, f"{LATCHES}/x.json": content}))
    assert (checkpoint.content is None) == (checkpoint.problem is not None)


WHOLE = container(response(FULL))


@settings(max_examples=300)
@given(
    st.sampled_from([WHOLE, response(FULL), FULL.SerializeToString()]),
    st.integers(0, len(WHOLE)),
    st.integers(0, len(WHOLE)),
    st.binary(max_size=8),
)
def test_damaged_configurations_are_no_traceback(content: bytes, start: int, end: int, instead: bytes) -> None:
    """A real configuration with any part of it replaced is read or refused, and the backup is there for the rest."""
    damaged = content[:start] + instead + content[end:]
    checkpoint = read_checkpoint(documents({MAIN: damaged, CANDIDATES[2]: response(TINY)}))
    assert checkpoint.problem is None


@given(st.binary(max_size=200))
def test_container_is_never_taken_for_a_response(payload: bytes) -> None:
    """Whatever a container holds, only a response inside it counts."""
    checkpoint = read_checkpoint(documents({MAIN: container(payload)}))
    try:
        inner = pb.ConfigResponse.FromString(payload).config.id.uuid
    except DecodeError:
        inner = ""
    assert (checkpoint.problem is None) == bool(inner and checkpoint.content)
