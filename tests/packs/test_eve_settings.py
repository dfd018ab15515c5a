"""EVE's settings find their way through the releases in one step, and nobody's ever become defaults."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.packs.eve_device import Device
from tests.support.disktree import capture, diff
from tests.support.olddisk import left, unsynced
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.errors import EXIT_DEVIATIONS, EXIT_DONE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD, MAP = "config/GlobalConfig/global.json", "config/ConfigItemValueMap/global.json"
STATUS = "status/zedagent/ConfigItemValueMap/global.json"
TAKEN_MAP, TAKEN_KEYS = "ingested/GlobalConfig/global.sha", "ingested/authorized_keys.sha"
CONFIGURATION = {
    "ConfigInterval": 61,
    "AllowNonFreeAppImages": 1,
    "AgentSettings": {"zedagent": {"LogLevel": "debug", "RemoteLogLevel": "info"}},
}


@pytest.fixture(autouse=True)
def _unsynced() -> Iterator[None]:
    with unsynced():
        yield


def of(value: str, **members: Any) -> bytes:
    """Return a map of one item that no release knows."""
    item = {"Key": "own", "ItemType": 3, "IntValue": 0, "StrValue": value, "BoolValue": False, "TriStateValue": 0}
    return json.dumps({"GlobalSettings": {"own": item}, "AgentSettings": {}, **members}).encode()


def old(device: Device, later: int = 0) -> None:
    """Write a configuration from before 5.1.0."""
    device.write(f"persist/{OLD}", json.dumps(CONFIGURATION).encode(), later)


def settings(device: Device, path: str = STATUS) -> dict[str, Any]:
    """Return the values of a map that are not empty, by key."""
    values = ("IntValue", "StrValue", "BoolValue", "TriStateValue")
    items = json.loads(device.read(path))["GlobalSettings"].items()
    return {key: next((item[name] for name in values if item[name]), None) for key, item in items}


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """Return an empty device."""
    return Device.at(tmp_path)


@pytest.mark.parametrize(
    ("target", "place", "mode", "dropped"),
    [("5.3.0", MAP, 0o644, False), ("5.15.0", STATUS, 0o600, False), ("8.9.0", STATUS, 0o600, True)],
)
def test_old_configuration(device: Device, target: str, place: str, mode: int, *, dropped: bool) -> None:
    """Whatever release comes next, what was set is set, and what the release has besides has its defaults."""
    old(device)
    before = capture(str(device.top / "persist"))
    assert left(device.do(target=target)) == {OLD: "Rewritten"}
    assert device.files() == [place]
    assert (device.top / "persist" / place).stat().st_mode & 0o777 == mode
    found = settings(device, place)
    assert (found["timer.config.interval"], found["timer.metric.interval"]) == (61, 60)
    assert ("network.allow.wwan.app.download" not in found) == dropped
    assert device.do(target=target)["outcome"] == "nothing-to-do"
    device.do("rollback", target=target)
    assert device.files() == [OLD]
    assert diff(before, capture(str(device.top / "persist"))).count("- ") == 0


@pytest.mark.parametrize(
    ("times", "value"),
    [
        pytest.param((2, 1, 0), None, id="old one is newest"),
        pytest.param((0, 2, 1), "map", id="map is newest"),
        pytest.param((1, 0, 2), "status", id="status is newest"),
        pytest.param((1, 1, 1), "status", id="all at once"),
    ],
)
def test_newest_counts(device: Device, times: tuple[int, int, int], value: str | None) -> None:
    """Of three forms the one that was written to last counts; the others are set aside, each once."""
    old(device, times[0])
    device.write(f"persist/{MAP}", of("map"), times[1])
    device.write(f"persist/{STATUS}", of("status"), times[2])
    device.do()
    assert device.files() == [STATUS]
    assert settings(device).get("own") == value
    assert settings(device)["timer.config.interval"] == (61 if value is None else 60)
    assert len(list(device.top.rglob("quarantine/*"))) == 3
    device.do("rollback")
    assert sorted(device.files()) == sorted([OLD, MAP, STATUS])


@pytest.mark.parametrize("path", [OLD, MAP, STATUS])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"GlobalSettings":7,"ConfigInterval":"x"}'])
def test_nobody_gets_defaults(device: Device, path: str, content: bytes) -> None:
    """A file that says nothing stays, is named, and nothing comes into its place."""
    device.write(f"persist/{path}", content)
    assert left(device.do()) == {path: "UnexpectedContent"}
    assert device.files() == [path]


def test_what_nobody_knows_survives(device: Device) -> None:
    """Items and members of another release stay, and a second look finds nothing to do."""
    device.write(f"persist/{STATUS}", of("mine", Future=[1.50, "<"]))
    device.do()
    assert b'"Future":[1.5,"\\u003c"]' in device.read(STATUS)
    assert settings(device)["own"] == "mine"
    assert device.do()["outcome"] == "nothing-to-do"


def test_nothing_set(device: Device) -> None:
    """A device on which nothing was ever set gets what the release has, unless a bootstrap configuration says so."""
    device.do()
    assert len(settings(device)) > 30
    device.do("rollback")
    device.write("config/bootstrap-config.pb", b"")
    assert device.do()["outcome"] == "nothing-to-do"


def test_import(device: Device) -> None:
    """What the configuration partition brings takes the place of everything, once; each key stays a line of its own."""
    given, keys = of("given"), b"ssh-rsa A a\n# mine\nssh-rsa B b"
    device.write(f"persist/{STATUS}", of("mine"))
    device.write("config/GlobalConfig/global.json", given)
    device.write("config/authorized_keys", keys)
    device.do()
    assert (settings(device)["own"], settings(device)["debug.enable.ssh"]) == ("given", "ssh-rsa A a\nssh-rsa B b")
    for path, content in ((TAKEN_MAP, given), (TAKEN_KEYS, keys)):
        assert device.read(path) == hashlib.sha256(content).digest()
    device.write(f"persist/{STATUS}", device.read(STATUS).replace(b"given", b"since"))
    assert device.do()["outcome"] == "nothing-to-do"
    device.write("config/authorized_keys", b"ssh-rsa C c\n")
    device.do()
    assert (settings(device)["own"], settings(device)["debug.enable.ssh"]) == ("since", "ssh-rsa C c")


def test_import_that_says_nothing(device: Device) -> None:
    """A damaged file in the configuration partition is named, and imported neither now nor ever as it is."""
    device.write(f"persist/{STATUS}", of("mine"))
    device.write("config/GlobalConfig/global.json", b"{")
    assert left(device.do())["GlobalConfig/global.json"] == "UnexpectedContent"
    assert settings(device)["own"] == "mine"
    assert TAKEN_MAP not in device.files()


def test_nothing_is_imported_beside_a_bootstrap_configuration(device: Device) -> None:
    """As EVE has it since 8.12.0; it is said."""
    device.write(f"persist/{STATUS}", of("mine"))
    device.write("config/GlobalConfig/global.json", of("given"))
    device.write("config/bootstrap-config.pb", b"")
    document = device.do()
    assert any("bootstrap" in warning for warning in document["warnings"])
    assert settings(device)["own"] == "mine"


@pytest.mark.parametrize("target", ["14.5.4-lts", "16.0.1-lts", "16.12.0", "latest"])
def test_no_reader(device: Device, target: str) -> None:
    """What no agent reads any more is not converted, and it is said why."""
    old(device)
    assert left(device.do(target=target)) == {"config/GlobalConfig": "NoReader"}
    assert device.files() == [OLD]


def test_trial(device: Device) -> None:
    """Both forms are there until the new system is found good; a rollback gives back what was."""
    old(device)
    device.do("--trial")
    assert device.files() == [OLD, STATUS]
    device.do("rollback")
    assert device.files() == [OLD]
    device.do("--trial")
    device.write(f"persist/{OLD}", json.dumps(CONFIGURATION | {"ConfigInterval": 62}).encode(), 9)
    device.do("--trial")
    assert settings(device)["timer.config.interval"] == 62
    device.do("confirm")
    assert device.files() == [STATUS]


@pytest.mark.parametrize("locked", ["config", "status"])
def test_locked(device: Device, monkeypatch: pytest.MonkeyPatch, locked: str) -> None:
    """Settings behind a key that is not there only look absent: it is said, and nothing takes their place."""
    state = PosixDisk.vault_state
    (device.top / "persist" / locked).mkdir()
    monkeypatch.setattr(PosixDisk, "vault_state", lambda disk, path: "locked" if path == locked else state(disk, path))
    found = left(device.do())
    assert set(found.values()) == {"VaultLocked"}
    assert device.files() == []


def test_old_form_was_removed(device: Device) -> None:
    """Whoever removes the old form has only the new one: a rollback leaves that, and says why."""
    old(device)
    (kept,) = [skip["detail"].rpartition(" ")[2] for skip in device.do()["skipped"]]
    (device.top / "persist" / kept).unlink()
    before = device.read(STATUS)
    status, document = device.start("rollback")
    assert (status, left(document)[STATUS]) == (EXIT_DEVIATIONS, "ChangedMeanwhile")
    assert device.read(STATUS) == before


def test_converting_is_no_failure(device: Device) -> None:
    """Strictly, too, everything is converted when an old form is kept for a rollback."""
    old(device)
    assert device.start("--strict")[0] == EXIT_DONE
    device.write(f"persist/{OLD}", b"{")
    assert device.start("--strict")[0] == EXIT_DEVIATIONS


@pytest.mark.parametrize("kind", ["symlink", "fifo"])
def test_odd_thing_makes_way(device: Device, kind: str) -> None:
    """What is no file where a digest belongs makes way, and comes back with everything else."""
    device.write(f"persist/{STATUS}", of("mine"))
    device.write("config/GlobalConfig/global.json", of("given"))
    odd = device.top / "persist" / TAKEN_MAP
    odd.parent.mkdir(parents=True)
    odd.symlink_to("nowhere") if kind == "symlink" else os.mkfifo(odd)
    before = capture(str(device.top / "persist"))
    device.do()
    assert settings(device)["own"] == "given"
    device.do("rollback")
    assert diff(before, capture(str(device.top / "persist"))) == ""


@pytest.mark.parametrize("path", [OLD, MAP, STATUS])
def test_nested_without_end(device: Device, path: str) -> None:
    """A file that nobody could write again is named, and stops nothing else."""
    deep = "[" * 600 + "]" * 600
    device.write(f"persist/{path}", f'{{"ConfigInterval":{deep},"GlobalSettings":{{}},"AgentSettings":{{}},"x":{deep}}}'.encode())
    assert left(device.do()) == {path: "UnexpectedContent"}


@pytest.mark.parametrize("path", [OLD, MAP])
def test_import_waits_for_what_is_there(device: Device, path: str) -> None:
    """Beside settings that cannot be read nothing is made that would count as the later ones; mended, they count."""
    device.write(f"persist/{path}", b"{")
    device.write("config/authorized_keys", b"ssh-rsa A a\n")
    document = device.do()
    assert device.files() == [path]
    assert any("is imported once" in warning for warning in document["warnings"])
    device.write(f"persist/{path}", json.dumps(CONFIGURATION).encode() if path == OLD else of("mine"))
    device.do()
    assert settings(device)["debug.enable.ssh"] == "ssh-rsa A a"
    assert settings(device)["timer.config.interval" if path == OLD else "own"] == (61 if path == OLD else "mine")
