"""What agents keep between boots keeps its meaning, file by file; what is damaged stops nothing and costs no other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.packs.eve_device import Device
from tests.support.olddisk import left, unsynced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NETWORK, APP, OTHER = (f"{digit * 8}-{digit * 4}-4{digit * 3}-8{digit * 3}-{digit * 12}" for digit in "123")
OLD, NEW = "status/zedrouter/UUIDPairToNum", "status/zedrouter/UUIDPairAndIfIdxToNum"
METADATA, NEW_METADATA = "status/zedrouter/AppInstMetaData", "status/msrv/AppInstMetaData"


@pytest.fixture(autouse=True)
def _unsynced() -> Iterator[None]:
    with unsynced():
        yield


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """Return an empty device."""
    return Device.at(tmp_path)


def pair(app: str = APP, number: int = 7, **more: Any) -> bytes:
    """Return what EVE 6.13 keeps for a pair."""
    times = {"CreateTime": "2021-09-01T12:00:00.5Z", "LastUseTime": "2021-11-01T12:00:00Z"}
    found = {"BaseID": NETWORK, "AppID": app, "Number": number, "NumType": "appNumOnUnet", **times, "InUse": True, **more}
    return json.dumps(found, separators=(",", ":")).encode()


def key(app: str = APP) -> str:
    """Return how EVE calls a pair."""
    return f"{NETWORK}-{app}"


def test_pair(device: Device) -> None:
    """A number is its first interface's, byte for byte as EVE writes it, and with what nobody knows here."""
    device.write(f"persist/{OLD}/{key()}.json", pair(Future="<"))
    device.do(target="7.7.0")
    assert (
        device.read(f"{NEW}/{key()}-0.json")
        == (
            f'{{"BaseID":"{NETWORK}","AppID":"{APP}","IfIdx":0,"Number":7,"NumType":"appNumOnUnet",'
            '"CreateTime":"2021-09-01T12:00:00.5Z","LastUseTime":"2021-11-01T12:00:00Z","InUse":true,"Future":"\\u003c"}'
        ).encode()
    )
    assert device.do(target="7.7.0")["outcome"] == "nothing-to-do"
    device.do("rollback", target="7.7.0")
    assert device.files() == [f"{OLD}/{key()}.json"]


def test_old_number_counts_for_its_pair_only(device: Device) -> None:
    """Whoever fell back and came again has counted on; the numbers of others, and of second interfaces, stay."""
    others = {f"{NEW}/{key()}-1.json": b"{}", f"{NEW}/{key(OTHER)}-0.json": b"{}"}
    for path, content in (others | {f"{NEW}/{key()}-0.json": pair(number=1)}).items():
        device.write(f"persist/{path}", content)
    device.write(f"persist/{OLD}/{key()}.json", pair(number=2))
    assert left(device.do())[f"{NEW}/{key()}-0.json"] == "Diverged"
    assert b'"Number":2' in device.read(f"{NEW}/{key()}-0.json")
    assert {path: device.read(path) for path in others} == others
    # As an agent does it since 8.3.1.
    assert device.read(f"{NEW}/{key()}-0.json.bak") == pair(number=1)


@pytest.mark.parametrize(
    ("files", "converted", "named"),
    [
        pytest.param({"a.json": b"{"}, 0, {"a.json": "UnexpectedContent"}, id="damaged"),
        pytest.param(
            {"a.json": b"{", "a.json.bak": pair()},
            0,
            {"a.json": "UnexpectedContent", "a.json.bak": "NameNotRecognised"},
            id="damaged with a backup",
        ),
        pytest.param({"a.json": b""}, 0, {"a.json": "UnexpectedContent"}, id="empty"),
        pytest.param({"a.json": b"", "a.json.bak": pair()}, 1, {"a.json": "Rewritten", "a.json.bak": "Rewritten"}, id="backup"),
        pytest.param({"a.json.bak": pair()}, 1, {"a.json.bak": "Rewritten"}, id="only a backup"),
        pytest.param({"a.json": pair("nobody")}, 0, {"a.json": "UnexpectedContent"}, id="no UUID"),
        pytest.param(
            {"a.json": pair().replace(b":7,", b":" + b"7" * 5000 + b",")},
            0,
            {"a.json": "UnexpectedContent"},
            id="no number of Go's",
        ),
        pytest.param({"a.json": pair(Number="7")}, 0, {"a.json": "UnexpectedContent"}, id="no number"),
        pytest.param(
            {"README": b"x", "tmp123": b"x", "restarted": b"1"},
            0,
            {"README": "NameNotRecognised", "tmp123": "NameNotRecognised", "restarted": "NoReader"},
            id="others",
        ),
    ],
)
def test_files(device: Device, files: dict[str, bytes], converted: int, named: dict[str, str]) -> None:
    """A backup counts where the file is missing or empty; what says nothing is named and stays."""
    for name, content in files.items():
        device.write(f"persist/{OLD}/{name}", content)
    device.write(f"persist/{OLD}/{key(OTHER)}.json", pair(OTHER, 9))
    found = left(device.do())
    assert found == {f"{OLD}/{name}": reason for name, reason in named.items()} | {f"{OLD}/{key(OTHER)}.json": "Rewritten"}
    assert len([path for path in device.files() if path.startswith(NEW)]) == converted + 1


def test_one_number_twice(device: Device) -> None:
    """What zedrouter cannot have given to two is said."""
    for app in (APP, OTHER):
        device.write(f"persist/{OLD}/{key(app)}.json", pair(app))
    assert any("number 7 to 2 applications" in warning for warning in device.do()["warnings"])


def test_metadata(device: Device) -> None:
    """Each file moves; what was there before of a start that did not come to its end is completed."""
    files = ("a-1.json", "a-1.json.bak", "restarted")
    for name in files:
        device.write(f"persist/{METADATA}/{name}", name.encode())
    device.write(f"persist/{NEW_METADATA}/a-1.json", b"a-1.json")
    device.do(target="17.1.0")
    assert device.files() == [f"{NEW_METADATA}/{name}" for name in files]
    device.do("rollback", target="17.1.0")
    assert set(device.files()) >= {f"{METADATA}/{name}" for name in files}


LISTED = b"agent/Topic\n  agent/scope/Deep  \n\nagent\n../../agent/Topic\nagent/File\nagent/Link\n/etc/passwd\n"


def test_stale_topics(device: Device) -> None:
    """Just the directories go that are listed in full, with all that is in them; a rollback brings them back."""
    files = ("agent/Topic/deep/x.json", "agent/scope/Deep/x.json", "agent/Other/x.json", "agent/File", "agent/scope/Other/x.json")
    for path in files:
        device.write(f"persist/status/{path}", b"x")
    (device.top / "persist/status/agent/Link").symlink_to("Other")
    assert device.do(target="17.1.0")["outcome"] == "nothing-to-do"
    device.write("eve/non-persistent-pubsub-topics", LISTED)
    found = left(device.do(target="17.1.0"))
    assert found == {
        "status/agent/Topic": "NoReader",
        "status/agent/scope/Deep": "NoReader",
        "status/agent/File": "NotADirectory",
        "status/agent/Link": "NotADirectory",
    }
    assert set(device.files()) == {f"status/{path}" for path in files[2:]}
    device.do("rollback", target="17.1.0")
    assert set(device.files()) == {f"status/{path}" for path in files}


def test_list_that_names_what_the_release_keeps(device: Device) -> None:
    """What another migration puts somewhere is not taken away again by a list that is mistaken."""
    device.write("persist/status/zedrouter/AppInstMetaData/a.json", b"{}")
    device.write("persist/status/msrv/AppInstMetaData/b.json", b"{}")
    device.write("eve/non-persistent-pubsub-topics", b"msrv/AppInstMetaData\nzedrouter/UUIDPairAndIfIdxToNum\n")
    assert left(device.do(target="17.1.0")) == {}
    assert set(device.files()) == {f"status/msrv/AppInstMetaData/{name}.json" for name in "ab"}
    assert device.do(target="17.1.0")["outcome"] == "nothing-to-do"
