"""RayOS's policy file, version 0: what it may say, what it says when there was none, and new paths in one that there is. Pure.

Unknown versions and keys are refused, never guessed at. A path is a path within the data root, whichever key has it.

Source: RayOS, "Policy Configuration Schema", draft v0, sections 3 and 4.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from .names import NotUnderstoodError, leads_out, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACE = "policy/rayos-policy.toml"
VERSION = 0
_SWITCH = ("off", "on")
_MACHINE: dict[str, Any] = {
    "enabled": bool,
    "vm_id": str,
    "autoboot": bool,
    "present_on_boot": bool,
    "limits": {"cpus": int, "mem_mib": int},
}
_SCHEMA: dict[str, Any] = {
    "version": int,
    "defaults": {"networking": _SWITCH, "present_on_boot": bool, "autoboot_vms": bool},
    "limits": {"cpu_percent": int, "mem_mib": int},
    "logging": {"level": ("error", "warn", "info", "debug", "trace"), "persist": bool},
    "linux": {
        **_MACHINE,
        "networking": (*_SWITCH, "provisioning_only"),
        "storage": {"root_disk": str},
        "devices": {"input": bool, "gpu": ("virtio", "none")},
    },
    "windows": {
        **_MACHINE,
        "networking": _SWITCH,
        "storage": {"disk": str, "ovmf_vars": str, "vtpm_state_dir": str},
        "devices": {"input": bool, "gpu": ("virtio", "none"), "vtpm": bool},
    },
}
_PATHS = (("linux", "root_disk"), ("windows", "disk"), ("windows", "ovmf_vars"), ("windows", "vtpm_state_dir"))


def read(content: bytes) -> dict[str, Any]:
    """Return what a policy file says; NotUnderstoodError where it is no policy of this version, with what is wrong."""
    try:
        data = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise NotUnderstoodError(f"expected TOML, found {error}") from error
    if type(data.get("version")) is not int or data["version"] != VERSION:
        raise NotUnderstoodError(f"expected version {VERSION}, found {data.get('version', 'none')!r}")
    _check(data, _SCHEMA, "")
    for problem in violations(data):
        raise NotUnderstoodError(problem)
    return data


def _check(data: Mapping[str, Any], schema: Mapping[str, Any], above: str) -> None:
    for name, value in data.items():
        wanted, key = schema.get(name), f"{above}{name}"
        if wanted is None:
            raise NotUnderstoodError(f"expected a key that version {VERSION} has, found {key}")
        if isinstance(wanted, dict):
            if not isinstance(value, dict):
                raise NotUnderstoodError(f"expected {key} to be a table, found {value!r}")
            _check(value, wanted, f"{key}.")
        elif (value not in wanted) if isinstance(wanted, tuple) else type(value) is not wanted:
            said = " or ".join(wanted) if isinstance(wanted, tuple) else f"a value of type {wanted.__name__}"
            raise NotUnderstoodError(f"expected {key} to be {said}, found {value!r}")


def paths(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the paths that a policy names, by their key."""
    storage = {machine: data.get(machine, {}).get("storage", {}) for machine, _ in _PATHS}
    return {f"{machine}.storage.{key}": plain(storage[machine][key]) for machine, key in _PATHS if key in storage[machine]}


def strays(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of paths that do not lie in the data root."""
    return tuple(key for key, path in paths(data).items() if leads_out(path))


def allows_networking(data: Mapping[str, Any], kind: str) -> bool:
    """Return whether the policy lets machines of a kind have a network, for good or while they are provisioned."""
    usual = data.get("defaults", {}).get("networking", "off")
    return bool(data.get(kind, {}).get("networking", usual) != "off")


def violations(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a policy says that version 0 forbids although it knows every word of it."""
    windows = data.get("windows", {})
    needs = windows.get("enabled") and not windows.get("devices", {}).get("vtpm")
    return ("windows.enabled needs windows.devices.vtpm",) if needs else ()


def moved(content: bytes, places: Mapping[str, str]) -> bytes:
    """Return a policy file with new paths for old ones; all else, comments and order too, stays as it is."""
    import tomlkit

    document = tomlkit.parse(content.decode("utf-8"))
    has_changed = False
    for machine, key in _PATHS:
        storage = document.get(machine, {}).get("storage", {})
        if plain(str(storage.get(key, ""))) in places:
            comment = storage[key].trivia
            new = tomlkit.item(places[plain(str(storage[key]))])
            new.trivia.comment_ws, new.trivia.comment, new.trivia.trail = comment.comment_ws, comment.comment, comment.trail
            storage[key] = new
            has_changed = True
    return tomlkit.dumps(document).encode("utf-8") if has_changed else content


def default(machines: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return the policy of a root that had none: networks off; of each kind of machine that there is what its registry wanted."""
    lines = [
        "version = 0",
        "",
        "[defaults]",
        'networking = "off"',
        "present_on_boot = false",
        "autoboot_vms = true",
    ]
    for kind in ("linux", "windows"):
        if kind not in machines:
            continue
        for table, values in machines[kind].items():
            lines += ["", f"[{kind}.{table}]" if table else f"[{kind}]"]
            lines += [f"{key} = {_in_toml(value)}" for key, value in values.items()]
    return ("\n".join(lines) + "\n").encode("utf-8")


def _in_toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    # Identities and paths of ours have nothing that would have to be escaped.
    return f'"{value}"' if isinstance(value, str) else str(value)
