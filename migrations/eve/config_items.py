"""EVE's settings as they are kept: what old ones are called today, and what each release has where nothing is set. Pure.

A map of settings, `ConfigItemValueMap`, has one item for each key, with a type, and the values of all types beside each other;
since 5.1.0 it is what agents read. Before that, `GlobalConfig` had one member for each setting.

Sources: lf-edge/eve `pkg/pillar/types/global.go` and `globalconfigold.go`, and the pull requests that added or removed a key.
Where the release of a change is known only within bounds, a key counts from the latest and to the earliest of them: what is
missing then is filled in by the agents themselves.
"""

# ruff: noqa: FBT003 - rows of a table
from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from . import gojson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .releases import Release

Value = int | bool | str


class ItemType(IntEnum):
    """Of which type an item is."""

    INT = 1
    BOOL = 2
    STRING = 3
    TRISTATE = 4


_I, _B, _S, _T = ItemType
# Members of an item in the order in which they are written, with what they are where another type counts.
_EMPTY: dict[str, Value] = {"IntValue": 0, "StrValue": "", "BoolValue": False, "TriStateValue": 0}
_MEMBERS = {_I: "IntValue", _B: "BoolValue", _S: "StrValue", _T: "TriStateValue"}
_LARGEST = {_I: 0xFFFFFFFF, _T: 2}


class _Row(Struct, frozen=True):
    """A key with its default, from one release on and before another; without these, from the first or to the last."""

    key: str
    type: ItemType
    default: Value
    since: Release | None = None
    until: Release | None = None


# Without `memory.eve.limit.bytes` and `memory.eve.limit.MiB`, whose defaults depend on the device.
_ROWS = (
    _Row("airgap.mode", _T, 0, (15, 6, 0)),
    _Row("app.allow.vnc", _B, False),
    _Row("app.enable.tcp.mss.clamping", _B, True, (16, 2, 0)),
    _Row("app.fml.resolution", _S, "", (13, 4, 0)),
    _Row("blob.download.max.retries", _I, 5, (14, 4, 0)),
    _Row("debug.default.loglevel", _S, "info"),
    _Row("debug.default.remote.loglevel", _S, "info"),
    _Row("debug.disable.dhcp.all-ones.netmask", _B, False, (6, 4, 0)),
    _Row("debug.enable.console", _B, True, (9, 4, 0)),
    _Row("debug.enable.ssh", _S, ""),
    _Row("debug.enable.usb", _B, True),
    _Row("debug.enable.vga", _B, True, (7, 8, 0)),
    _Row("debug.enable.vnc.shim.vm", _B, False, (12, 3, 0)),
    _Row("debug.kernel.loglevel", _S, "info", (12, 0, 0)),
    _Row("debug.kernel.remote.loglevel", _S, "info", (14, 2, 0)),
    _Row("debug.syslog.loglevel", _S, "info", (12, 0, 0)),
    _Row("debug.syslog.remote.loglevel", _S, "info", (14, 2, 0)),
    _Row("debug.tui.loglevel", _S, "info", (14, 5, 0)),
    _Row("diag.probe.remote.http.endpoint", _S, "www.google.com", (16, 0, 0)),
    _Row("diag.probe.remote.https.endpoint", _S, "www.google.com", (16, 0, 0)),
    _Row("drain.skip.k8sapinotreachable.timeout", _I, 300, (16, 1, 0)),
    _Row("edgeview.authen.jwt", _S, "", (7, 11, 0), (10, 8, 0)),
    _Row("edgeview.authen.publickey", _S, "", (15, 4, 0)),
    _Row("force.fallback.counter", _I, 0, (5, 18, 0)),
    _Row("gogc.forced.growth.memory.MiB", _I, 50, (13, 5, 0)),
    _Row("gogc.forced.growth.memory.percent", _I, 20, (13, 5, 0)),
    _Row("gogc.forced.interval.seconds", _I, 10, (13, 5, 0)),
    _Row("gogc.memory.limit.bytes", _I, 0, (13, 4, 0)),
    _Row("gogc.percent", _I, 100, (13, 4, 0)),
    _Row("goroutine.leak.detection.check.interval.minutes", _I, 1, (14, 2, 0)),
    _Row("goroutine.leak.detection.check.window.minutes", _I, 10, (14, 2, 0)),
    _Row("goroutine.leak.detection.cooldown.minutes", _I, 5, (14, 2, 0)),
    _Row("goroutine.leak.detection.keep.stats.hours", _I, 24, (14, 2, 0)),
    _Row("goroutine.leak.detection.threshold", _I, 5000, (14, 2, 0)),
    _Row("internal-memory-monitor.analyze.enabled", _B, True, (16, 5, 0)),
    _Row("internal-memory-monitor.store.enabled", _B, True, (16, 5, 0)),
    _Row("kubernetes.drain.timeout", _I, 24, (16, 1, 0)),
    _Row("kubevirt.drain.skip.k8sapinotreachable.timeout", _I, 300, (14, 5, 0), (15, 8, 0)),
    _Row("kubevirt.drain.timeout", _I, 24, (14, 5, 0), (15, 8, 0)),
    _Row("log.count.filenames", _S, "", (14, 5, 0)),
    _Row("log.dedup.window.size", _I, 0, (14, 5, 0)),
    _Row("log.filter.filenames", _S, "", (14, 5, 0)),
    _Row("maintenance.mode", _T, 0, (5, 18, 0)),
    _Row("memory-monitor.enabled", _B, False, (14, 5, 0)),
    _Row("memory.apps.ignore.check", _B, False, (5, 20, 0)),
    _Row("memory.vmm.limit.MiB", _I, 0, (9, 1, 0)),
    _Row("msrv.prometheus.metrics.burst", _I, 10, (15, 0, 0)),
    _Row("msrv.prometheus.metrics.idletimeout.seconds", _I, 240, (15, 0, 0)),
    _Row("msrv.prometheus.metrics.rps", _I, 1, (15, 0, 0)),
    _Row("netdump.downloader.http.with.fieldvalue", _B, False, (10, 6, 0)),
    _Row("netdump.downloader.with.pcap", _B, False, (9, 8, 0)),
    _Row("netdump.enable", _B, True, (9, 6, 0)),
    _Row("netdump.topic.maxcount", _I, 10, (9, 6, 0)),
    _Row("netdump.topic.postonboard.interval", _I, 86400, (9, 6, 0)),
    _Row("netdump.topic.preonboard.interval", _I, 3600, (9, 6, 0)),
    _Row("network.allow.wwan.app.download", _T, 2, None, (6, 0, 0)),
    _Row("network.allow.wwan.baseos.download", _T, 2, None, (6, 0, 0)),
    _Row("network.download.max.cost", _I, 0, (6, 5, 0)),
    _Row("network.fallback.any.eth", _T, 2, None, (9, 2, 0)),
    _Row("network.fallback.any.eth", _T, 1, (9, 2, 0), None),
    _Row("network.local.legacy.mac.address", _B, False, (11, 5, 0)),
    _Row("network.switch.enable.arpsnoop", _B, True, (10, 4, 0)),
    _Row("newlog.allow.fastupload", _B, False, (5, 18, 0)),
    _Row("newlog.gzipfiles.ondisk.maxmegabytes", _I, 2048, (6, 2, 0)),
    _Row("process.cloud-init.multipart", _B, False, (7, 11, 0)),
    _Row("storage.apps.ignore.disk.check", _B, False),
    _Row("storage.dom0.disk.maxusagebytes", _I, 2147483648, (5, 5, 0)),
    _Row("storage.dom0.disk.minusage.percent", _I, 20),
    _Row("storage.zfs.reserved.percent", _I, 20, (9, 6, 0)),
    _Row("timer.appcontainer.stats.interval", _I, 300, (5, 8, 0)),
    _Row("timer.boot.retry", _I, 600),
    _Row("timer.cert.interval", _I, 86400, (9, 6, 0)),
    _Row("timer.config.interval", _I, 60),
    _Row("timer.defer.content.delete", _I, 0, (6, 1, 0)),
    _Row("timer.deviceinfo.interval", _I, 600, (15, 11, 0)),
    _Row("timer.dial.timeout", _I, 10, (10, 3, 0)),
    _Row("timer.download.retry", _I, 600),
    _Row("timer.download.stalled", _I, 600, (5, 18, 0)),
    _Row("timer.gc.download", _I, 600, None, (5, 7, 1)),
    _Row("timer.gc.vdisk", _I, 3600),
    _Row("timer.hardwarehealth.interval", _I, 43200, (14, 5, 0)),
    _Row("timer.hardwareinfo.interval", _I, 10800, (15, 11, 0), (16, 2, 0)),
    _Row("timer.location.app.interval", _I, 20, (8, 5, 0)),
    _Row("timer.location.cloud.interval", _I, 3600, (8, 5, 0)),
    _Row("timer.metric.diskscan.interval", _I, 300, (5, 15, 0)),
    _Row("timer.metric.interval", _I, 60),
    _Row("timer.ntpsources.interval", _I, 600, (12, 8, 0)),
    _Row("timer.port.georedo", _I, 3600),
    _Row("timer.port.georetry", _I, 600),
    _Row("timer.port.testbetterinterval", _I, 0, None, (5, 6, 0)),
    _Row("timer.port.testbetterinterval", _I, 600, (5, 6, 0), None),
    _Row("timer.port.testduration", _I, 30),
    _Row("timer.port.testinterval", _I, 300),
    _Row("timer.port.timeout", _I, 15),
    _Row("timer.reboot.no.network", _I, 604800),
    _Row("timer.send.timeout", _I, 120),
    _Row("timer.test.baseimage.update", _I, 600),
    _Row("timer.update.fallback.no.network", _I, 300),
    _Row("timer.use.config.checkpoint", _I, 600, None, (5, 8, 0)),
    _Row("timer.use.config.checkpoint", _I, 604800, (5, 8, 0), (10, 8, 0)),
    _Row("timer.vault.ready.cutoff", _I, 300, (5, 16, 0)),
    _Row("vector.config", _S, "", (15, 6, 0)),
    _Row("vector.enabled", _B, True, (15, 6, 0)),
    _Row("wwan.modem.recovery.reload.drivers", _B, False, (15, 4, 0)),
    _Row("wwan.modem.recovery.restart.modemmanager", _B, False, (15, 4, 0)),
    _Row("wwan.modem.recovery.watchdog", _B, False, (15, 4, 0)),
    _Row("wwan.query.visible.providers", _B, False, (11, 5, 0)),
)

# Members of the old configuration, and what they are called since 5.1.0. `SshAccess` has no successor.
_OLD: dict[str, tuple[str, ItemType]] = {
    "ConfigInterval": ("timer.config.interval", _I),
    "MetricInterval": ("timer.metric.interval", _I),
    "ResetIfCloudGoneTime": ("timer.reboot.no.network", _I),
    "FallbackIfCloudGoneTime": ("timer.update.fallback.no.network", _I),
    "MintimeUpdateSuccess": ("timer.test.baseimage.update", _I),
    "StaleConfigTime": ("timer.use.config.checkpoint", _I),
    "DownloadGCTime": ("timer.gc.download", _I),
    "VdiskGCTime": ("timer.gc.vdisk", _I),
    "DownloadRetryTime": ("timer.download.retry", _I),
    "DomainBootRetryTime": ("timer.boot.retry", _I),
    "NetworkGeoRedoTime": ("timer.port.georedo", _I),
    "NetworkGeoRetryTime": ("timer.port.georetry", _I),
    "NetworkTestDuration": ("timer.port.testduration", _I),
    "NetworkTestInterval": ("timer.port.testinterval", _I),
    "NetworkTestBetterInterval": ("timer.port.testbetterinterval", _I),
    "NetworkTestTimeout": ("timer.port.timeout", _I),
    "NetworkSendTimeout": ("timer.send.timeout", _I),
    "Dom0MinDiskUsagePercent": ("storage.dom0.disk.minusage.percent", _I),
    "NetworkFallbackAnyEth": ("network.fallback.any.eth", _T),
    "AllowNonFreeAppImages": ("network.allow.wwan.app.download", _T),
    "AllowNonFreeBaseImages": ("network.allow.wwan.baseos.download", _T),
    "AllowAppVnc": ("app.allow.vnc", _B),
    "UsbAccess": ("debug.enable.usb", _B),
    "IgnoreMemoryCheckForApps": ("memory.apps.ignore.check", _B),
    "IgnoreDiskCheckForApps": ("storage.apps.ignore.disk.check", _B),
    "SshAuthorizedKeys": ("debug.enable.ssh", _S),
    "DefaultLogLevel": ("debug.default.loglevel", _S),
    "DefaultRemoteLogLevel": ("debug.default.remote.loglevel", _S),
}
_OLD_OF_AGENT = {"LogLevel": "debug.loglevel", "RemoteLogLevel": "debug.remote.loglevel"}
SSH_KEY = "debug.enable.ssh"


def default_items(release: Release) -> dict[str, Any]:
    """Return the items that a release has where nothing is set, by key."""
    present = (row for row in _ROWS if (row.since or release) <= release and (row.until is None or release < row.until))
    return {row.key: item_of(row.key, row.type, row.default) for row in present}


def item_of(key: str, kind: ItemType, value: Value) -> dict[str, Any]:
    """Return one item."""
    return {"Key": key, "ItemType": kind.value, **_EMPTY, _MEMBERS[kind]: value}


def write_map(settings: Mapping[str, Any], agents: Mapping[str, Mapping[str, Any]], more: Mapping[str, Any]) -> bytes:
    """Return a map of settings as EVE writes it; `more` are members of which nobody knows here."""
    by_agent = {name: gojson.sorted_map(dict(items)) for name, items in agents.items()}
    document = {"GlobalSettings": gojson.sorted_map(dict(settings)), "AgentSettings": gojson.sorted_map(by_agent)}
    return gojson.write(document | dict(more))


def read_old(content: bytes) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the items that a configuration from before 5.1.0 sets, and those of each agent.

    What it does not say is left to the defaults: EVE's own converter takes zero for that.

    Raises:
        ValueError: it is no such configuration; EVE would not read it either.
    """
    found = _object(gojson.read(content))
    items = {key: item_of(key, kind, value) for key, kind, value in _values(found, _OLD)}
    words = {name: (key, _S) for name, key in _OLD_OF_AGENT.items()}
    by_agent = {
        name: {key: item_of(key, kind, value) for key, kind, value in _values(_object(settings), words)}
        for name, settings in _object(gojson.member(found, "AgentSettings")).items()
    }
    return items, by_agent


def _object(value: Any) -> dict[str, Any]:
    """Return an object, an empty one for none."""
    if isinstance(value, dict) or value is None:
        return value or {}
    message = f"expected an object, found {gojson.write(value).decode(errors='replace')[:40]}"
    raise ValueError(message)


def _values(found: Any, names: Mapping[str, tuple[str, ItemType]]) -> Iterator[tuple[str, ItemType, Value]]:
    for name, (key, kind) in names.items():
        value = gojson.member(found, name)
        if value is not None:
            yield key, kind, _checked(name, kind, value)


def _checked(name: str, kind: ItemType, value: Any) -> Value:
    number = gojson.whole_number(value)
    if kind in _LARGEST and number is not None and 0 <= number <= _LARGEST[kind]:
        return number
    if kind is ItemType.BOOL and isinstance(value, bool):
        return value
    if kind is ItemType.STRING and isinstance(value, str) and not isinstance(value, gojson.Number):
        return value
    message = f"{name}: expected {kind.name.lower()}, found {gojson.write(value).decode(errors='replace')[:40]}"
    raise ValueError(message)


def read_map(content: bytes) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the items of a map of settings as they are, those of each agent, and the members that nobody knows here.

    Raises:
        ValueError: it is no such map; EVE would not read it either.
    """
    found = _object(gojson.read(content))
    settings, agents = (_object(gojson.member(found, name)) for name in ("GlobalSettings", "AgentSettings"))
    more = {name: value for name, value in found.items() if name not in ("GlobalSettings", "AgentSettings")}
    return dict(settings), {name: dict(_object(items)) for name, items in agents.items()}, more


def read_keys(content: bytes) -> str:
    """Return the keys of an `authorized_keys` file, one in each line; comments and empty lines are left out.

    EVE's own converter joins them without anything between, and loses a last line without a newline (known defect 22).
    """
    lines = (line.strip() for line in content.decode("utf-8-sig", errors="replace").split("\n"))
    return "\n".join(line for line in lines if line and not line.startswith("#"))
