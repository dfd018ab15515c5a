"""Settings keep their meaning, whatever they are called, and what nobody knows of them survives."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrations.eve.config_items import (
    ItemType,
    default_items,
    item_of,
    read_keys,
    read_map,
    read_old,
    write_map,
)

OLD = {
    "ConfigInterval": 61,
    "NetworkFallbackAnyEth": 2,
    "UsbAccess": True,
    "SshAccess": True,
    "SshAuthorizedKeys": "ssh-rsa AAAA a@b",
    "AgentSettings": {"zedagent": {"LogLevel": "debug", "RemoteLogLevel": "info"}},
}


def test_old_members() -> None:
    """Each member becomes an item with its value in the one place that counts; what is not there is not set."""
    items, agents = read_old(json.dumps(OLD).encode())
    assert items == {
        "timer.config.interval": item_of("timer.config.interval", ItemType.INT, 61),
        "network.fallback.any.eth": item_of("network.fallback.any.eth", ItemType.TRISTATE, 2),
        "debug.enable.usb": item_of("debug.enable.usb", ItemType.BOOL, True),
        "debug.enable.ssh": item_of("debug.enable.ssh", ItemType.STRING, "ssh-rsa AAAA a@b"),
    }
    assert {key: item["StrValue"] for key, item in agents["zedagent"].items()} == {
        "debug.loglevel": "debug",
        "debug.remote.loglevel": "info",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"ConfigInterval": -1},
        {"ConfigInterval": 1 << 32},
        {"ConfigInterval": "60"},
        {"ConfigInterval": 1.5},
        {"NetworkFallbackAnyEth": 3},
        {"UsbAccess": 1},
        {"SshAuthorizedKeys": 7},
        {"AgentSettings": []},
        {"AgentSettings": {"zedagent": 7}},
    ],
)
def test_old_configuration_that_is_none(change: dict[str, Any]) -> None:
    """What EVE would not read is not read; nobody's settings become defaults by it."""
    with pytest.raises(ValueError, match="expected"):
        read_old(json.dumps(OLD | change).encode())


def test_written() -> None:
    """The map is as EVE writes it: members in order, keys sorted, nothing between."""
    items = {"b": item_of("b", ItemType.TRISTATE, 1), "a": item_of("a", ItemType.STRING, "<")}
    assert write_map(items, {}, {}) == (
        b'{"GlobalSettings":{'
        b'"a":{"Key":"a","ItemType":3,"IntValue":0,"StrValue":"\\u003c","BoolValue":false,"TriStateValue":0},'
        b'"b":{"Key":"b","ItemType":4,"IntValue":0,"StrValue":"","BoolValue":false,"TriStateValue":1}},'
        b'"AgentSettings":{}}'
    )


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)
ITEMS = st.dictionaries(st.text(), st.dictionaries(st.text(), JSON))


@given(ITEMS, st.dictionaries(st.text(), ITEMS), st.dictionaries(st.just("Future"), JSON))
def test_nothing_is_lost(settings: dict[str, Any], agents: dict[str, Any], more: dict[str, Any]) -> None:
    """What was written is read again, with all that nobody knows."""
    written = write_map(settings, agents, more)
    assert json.loads(written) == {"GlobalSettings": settings, "AgentSettings": agents, **more}
    assert write_map(*read_map(written)) == written


@pytest.mark.parametrize("content", [b"", b"[]", b'{"GlobalSettings":[]}', b'{"AgentSettings":{"a":7}}', b'{"GlobalSettings":'])
def test_map_that_is_none(content: bytes) -> None:
    """A map that is damaged, or none, is refused as a whole."""
    with pytest.raises(ValueError):  # noqa: PT011 - the one error of the contract
        read_map(content)


@given(st.binary())
def test_anything(content: bytes) -> None:
    """Whatever lies on a disk is read or refused."""
    for read in (read_map, read_old):
        with contextlib.suppress(ValueError):
            read(content)


@pytest.mark.parametrize(
    ("release", "key", "value"),
    [
        ((5, 1, 0), "timer.gc.download", 600),
        ((5, 7, 0), "timer.gc.download", 600),
        ((5, 7, 1), "timer.gc.download", None),
        ((5, 7, 1), "timer.use.config.checkpoint", 600),
        ((5, 8, 0), "timer.use.config.checkpoint", 604800),
        ((10, 8, 0), "timer.use.config.checkpoint", None),
        ((5, 15, 0), "network.allow.wwan.app.download", 2),
        ((6, 0, 0), "network.allow.wwan.app.download", None),
        ((6, 5, 0), "network.download.max.cost", 0),
        ((5, 7, 0), "network.fallback.any.eth", 2),
        ((15, 0, 0), "network.fallback.any.eth", 1),
        ((15, 0, 0), "timer.config.interval", 60),
    ],
)
def test_defaults(release: tuple[int, int, int], key: str, value: int | None) -> None:
    """A release has the keys of its time, with the defaults of its time."""
    item = default_items(release).get(key)
    assert (item and (item["IntValue"] or item["TriStateValue"])) == value or (item is not None and value == 0)


def test_defaults_of_15() -> None:
    """EVE 15.0.0 has 85 keys, two of which depend on the device."""
    assert len(default_items((15, 0, 0))) == 83


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (b"ssh-rsa AAAA a\nssh-ed25519 BBBB b\n", "ssh-rsa AAAA a\nssh-ed25519 BBBB b"),
        (b"# mine\nssh-rsa AAAA a", "ssh-rsa AAAA a"),
        (b"\r\n  ssh-rsa AAAA a\r\n\r\n", "ssh-rsa AAAA a"),
        (b"# nothing\n", ""),
    ],
)
def test_keys(content: bytes, keys: str) -> None:
    """Each key stays a line of its own, the last one too."""
    assert read_keys(content) == keys
