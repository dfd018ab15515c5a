"""The network configuration in the unsealed vault: its readers find it, and nothing that anybody writes is lost on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.packs.eve_device import Device
from tests.support.disktree import capture, diff
from tests.support.olddisk import left, unsynced
from upgradeconverter.errors import EXIT_DONE, EXIT_REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PORTS, NEW = "status/nim/DevicePortConfigList", "unsealed-vault/nim/DevicePortConfigList"
WANTED = ("--option", "unsealed-vault=on")


@pytest.fixture(autouse=True)
def _unsynced() -> Iterator[None]:
    with unsynced():
        yield


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """Return a device with an open vault for it."""
    made = Device.at(tmp_path)
    made.write(f"persist/{PORTS}/global.json", b"old")
    (made.top / "persist/unsealed-vault").mkdir()
    return made


def _do(device: Device, *words: str) -> dict[str, Any]:
    return device.do(*words, *WANTED, target="latest")


@pytest.mark.parametrize("trial", [False, True], ids=["at once", "trial"])
def test_readers_find_it(device: Device, *, trial: bool) -> None:
    """Under its name and by a relative link; later starts have nothing to say of it, and a rollback leaves no trace."""
    before = capture(str(device.top / "persist"))
    _do(device, *(["--trial"] if trial else []))
    if trial:
        _do(device, "confirm")
    assert device.read(f"{PORTS}/global.json") == device.read(f"{NEW}/global.json") == b"old"
    assert not (device.top / "persist" / PORTS).readlink().is_absolute()
    again = _do(device)
    assert (again["outcome"], again["skipped"]) == ("nothing-to-do", [])
    assert _do(device, "verify")["details"]["deviations"] == []
    assert left(_do(device, "rollback")) == {}
    assert diff(before, capture(str(device.top / "persist"))) == ""


def test_written_to_by_the_link(device: Device) -> None:
    """What nim wrote since is set aside when the old directory comes back."""
    _do(device)
    device.write(f"persist/{PORTS}/global.json", b"new")
    assert left(_do(device, "rollback")) == {NEW: "Diverged"}
    assert device.read(f"{PORTS}/global.json") == b"old"
    assert [path for path in (device.top / "persist").rglob("quarantine/*/global.json") if path.read_bytes() == b"new"]


def test_old_system_made_a_directory(device: Device) -> None:
    """Where the old system put a directory in the place of the link a trial cannot be confirmed, but given up."""
    _do(device, "--trial")
    (device.top / "persist" / PORTS).unlink()
    device.write(f"persist/{PORTS}/global.json", b"newer")
    status, document = device.start("confirm", *WANTED, target="latest")
    assert (status, document["error"]["code"]) == (EXIT_REFUSED, "TrialOvertaken")
    device.start("rollback", *WANTED, target="latest")
    assert device.read(f"{PORTS}/global.json") == b"newer"
    assert device.start("plan", target="latest")[0] == EXIT_DONE
