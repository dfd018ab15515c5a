"""A fresh Debian boots with the package on a real old disk: order, conditions, conversion, the way back, and a locked vault."""

from __future__ import annotations

import glob
import json
import subprocess
import uuid
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.support import machine as rig
from tests.support.cases import load_cases
from tests.support.disktree import capture
from tests.support.freshroot import installed
from tests.support.machine import CONFIRM, PERSIST, POST, PRE, READER, UNLOCK, UNLOCK_LATER, UNLOCKED, Machine, machine
from tests.support.olddisk import DIGEST, IMAGE, PREPARED, TARGETS, make_disk
from tests.support.starting import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.disktree import Tree
    from tests.support.machine import Boot

# The first test waits until a Debian is there and the package is built.
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]
# A service that only waits, and one that has the drop-in for readers.
WAITS = f"[Unit]\nAfter={PRE} {POST}\n{READER}"
NEEDS = (CHECKOUT / "init/systemd/readers.conf").read_text(encoding="utf-8") + READER
READERS = {"waits.service": WAITS, "needs.service": NEEDS}
# What judges the boot, and what it says.
GOOD, BAD = (
    f"[Unit]\nBefore=boot-complete.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/{answer}\n"
    "[Install]\nRequiredBy=boot-complete.target\n"
    for answer in ("true", "false")
)
# A layout in which settings lie elsewhere than before; what is chosen makes both phases look closer, too.
SETTINGS = {"/etc/upgradeconverter.toml": 'target = "5.15.0"\n'}
OLD_NAMES = (IMAGE, PREPARED)
MOVED_SETTINGS = "status/zedagent/ConfigItemValueMap/global.json"


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Machine]:
    """Give a machine with the small old disk."""
    tree = capture(make_disk(tmp_path / "old"))
    with machine(installed(), tmp_path, tree) as made:
        yield made


def on_disk(made: Machine) -> Tree:
    """Return all that lies on the disk, in the vault too; without access times, since systemd's conditions list directories."""
    with made.unlocked() as top:
        tree = capture(top, engine=True)
    return {path: {name: value for name, value in entry.items() if name != "atime"} for path, entry in tree.items()}


def outcomes(boot: Boot, unit: str) -> list[str]:
    """Return the outcome of each report of a unit."""
    return [document["outcome"] for document in boot.reports(unit)]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Machine]:
    """Give a machine with a disk on which there is something to convert before the vault is unlocked, and after it."""
    settings = next(case.tree for case in load_cases("eve") if case.name == "config_moves")
    with machine(installed(), tmp_path, settings | capture(make_disk(tmp_path / "old"))) as made:
        yield made


def test_order_and_conversion(both: Machine) -> None:
    """One after the other, from the mount to the first reader; what the old system left lies in the vault under its new names."""
    plain = f"[Unit]\nDescription=any service\n{READER}"
    boot = both.boot(units={**READERS, "plain.service": plain, "judge.service": GOOD}, files=SETTINGS)
    units = boot.units
    assert (boot.state, boot.jobs) == ("running", [])
    assert [units[name].result for name in (PRE, POST, CONFIRM)] == ["success"] * 3
    chain = [units[name] for name in (PERSIST, PRE, UNLOCK, UNLOCKED, POST)]
    assert [(a.properties["Id"], b.properties["Id"]) for a, b in pairwise(chain) if not 0 < a.ended <= b.started] == []
    for name in READERS:
        assert units[POST].ended <= units[name].started
    assert units[PRE].ended <= units["plain.service"].started
    assert units["judge.service"].ended <= units["boot-complete.target"].ended <= units[CONFIRM].started
    assert [outcomes(boot, name) for name in (PRE, POST, CONFIRM)] == [["done"]] * 3
    disk = on_disk(both)
    assert disk.keys() >= {MOVED_SETTINGS, *TARGETS[:2], f"vault/verifier/verified/{DIGEST}"}
    assert disk.keys() & {"config", *OLD_NAMES, ".upgradeconverter/waiting"} == set()


def test_status_is_told_to_systemd(old: Machine) -> None:
    """`systemctl status` shows how far the phase and the confirmation came."""
    units = old.boot().units
    assert units[POST].text.startswith("post-vault: 100 %, ")
    assert units[CONFIRM].text.startswith("confirm: ")


def test_second_boot_has_nothing_to_do(old: Machine) -> None:
    """After the conversion the phases look and say so; once they have noted that, the disk stays as it is."""
    old.boot()
    old.boot()
    before = on_disk(old)
    third = old.boot()
    assert [outcomes(third, name) for name in (PRE, POST)] == [["nothing-to-do"]] * 2
    assert (third.units[CONFIRM].condition, third.units[CONFIRM].ran) == (False, 0)
    assert on_disk(old) == before


def test_empty_disk_starts_no_process(tmp_path: Path) -> None:
    """On a new device all three are skipped by their conditions, which is no failure."""
    empty = {"": {"kind": "directory", "mode": "0755", "mtime": 0}}
    with machine(installed(), tmp_path, empty) as made:
        boot = made.boot(units=READERS)
        assert on_disk(made).keys() == {"", "vault"}
    for unit in (boot.units[name] for name in (PRE, POST, CONFIRM)):
        assert unit.asked > 0
        assert (unit.active, unit.condition, unit.ran) == ("inactive", False, 0)
    assert [boot.units[name].active for name in READERS] == ["active"] * 2
    assert boot.state == "running"


@pytest.mark.parametrize(("word", "told"), [("off", []), ("dry-run", ["planned"])])
def test_word_of_the_kernel(word: str, told: list[str], old: Machine) -> None:
    """Switched off nothing is started, and rehearsed nothing is written; who reads the state starts in both cases."""
    before = on_disk(old)
    boot = old.boot(f"upgradeconverter={word}", units=READERS)
    assert (boot.units[POST].ran > 0, outcomes(boot, POST)) == (bool(told), told)
    assert (boot.units[PRE].ran > 0) == bool(told)
    assert [boot.units[name].active for name in READERS] == ["active"] * 2
    assert boot.state == "running"
    assert on_disk(old) == before


def test_bad_boot_confirms_nothing_and_can_be_taken_back(old: Machine) -> None:
    """What judges the boot holds up the confirmation; a rollback gives the old disk, and a boot without us leaves it so."""
    before = on_disk(old)
    bad = old.boot(units={"judge.service": BAD})
    assert (bad.units[CONFIRM].ran, outcomes(bad, POST)) == (0, ["done"])
    disk = on_disk(old)
    assert disk.keys() >= {*OLD_NAMES, ".upgradeconverter/waiting"}
    back = old.boot("upgradeconverter=off", then="upgradeconverter rollback --output json")
    assert (back.status, json.loads(back.said[back.said.index("\n{\n") :])["outcome"]) == (0, "done")
    assert _without_ours(on_disk(old)) == before
    old.boot("upgradeconverter=off")
    assert _without_ours(on_disk(old)) == before


def _without_ours(tree: Tree) -> Tree:
    return {path: entry for path, entry in tree.items() if not path.startswith(".upgradeconverter")}


@pytest.mark.parametrize("later", [False, True])
def test_locked_vault(later: bool, old: Machine) -> None:
    """A vault that stays locked is not touched, and who needs the new layout stays down, until it is unlocked after all."""
    before = on_disk(old)
    then = f"{UNLOCK_LATER} && systemctl start needs.service" if later else ""
    boot = old.boot(units=READERS, unlock=False, then=then)
    units = boot.units
    assert boot.state == "degraded"
    assert [units[name].active for name in ("waits.service", "needs.service")] == ["active", "active" if later else "inactive"]
    assert [units[name].active for name in (UNLOCK, UNLOCKED, POST)] == (
        ["active"] * 3 if later else ["failed", "inactive", "inactive"]
    )
    assert (boot.status, outcomes(boot, POST)) == (0, ["done"] if later else [])
    if later:
        assert units["waits.service"].ended < units[UNLOCK].ended <= units[POST].ran < units["needs.service"].ran
    disk = on_disk(old)
    assert (_without_ours(disk) == before) != later
    assert (".upgradeconverter/waiting" in disk) == later


def test_device_without_a_vault_that_could_be_locked(tmp_path: Path) -> None:
    """Where `vault` is a plain folder and the target is enabled as it is, the same is converted."""
    with machine(installed(), tmp_path, capture(make_disk(tmp_path / "old")), vault=False) as made:
        boot = made.boot()
        assert (outcomes(boot, POST), UNLOCK in boot.units) == (["done"], False)
        assert on_disk(made).keys() & set(OLD_NAMES) == set()


def test_what_a_boot_leaves_is_read(old: Machine) -> None:
    """Files below the kept paths, the journal with its fields, and a disk that is let go in order, can be looked at."""
    writes = "/bin/sh -c 'mkdir -p /run/upgradeconverter/a && echo said >/run/upgradeconverter/a/b'"
    unit = READER.replace("/bin/true", f"{writes}\nExecStop=/bin/touch /persist/stopped")
    boot = old.boot(units={"writes.service": unit}, keep=("/run/upgradeconverter/a", "/etc/machine-id"), cleanly=True)
    assert boot.files["/run/upgradeconverter/a/b"] == b"said\n"
    assert boot.files.keys() == {"/run/upgradeconverter/a/b", "/etc/machine-id"}
    assert any(entry.get("CODE_FUNC") and entry.get("UNIT") == "writes.service" for entry in boot.journal)
    assert "stopped" in on_disk(old)


def test_boot_that_hangs_is_told(old: Machine) -> None:
    """A boot that does not come to its end is looked at all the same, with what it waits for."""
    hangs = "[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    boot = old.boot(units={"hangs.service": hangs}, patience=2)
    assert boot.state in {"", "starting"}
    assert "hangs.service" in " ".join(boot.jobs)
    assert outcomes(boot, POST) == ["done"]


def test_nothing_is_left_of_a_machine_that_had_to_be_stopped(old: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that never says that it is done is killed, with all its processes, mounts and control groups."""
    known = uuid.uuid4()
    monkeypatch.setattr(uuid, "uuid4", lambda: known)
    monkeypatch.setattr(rig, "_STARTING", 1.0)
    silent = "[Service]\nExecStart=/bin/sleep 43210\n[Install]\nWantedBy=sysinit.target\n"
    with pytest.raises(rig.DidNotBootError):
        old.boot("upgradeconverter=off", units={"collect.service": silent}, patience=1)
    assert subprocess.run(["pgrep", "-f", "sleep 43210"], check=False, capture_output=True).stdout == b""
    with open("/proc/mounts", encoding="utf-8") as mounts:
        assert [line for line in mounts if str(old.scratch) in line and "overlay" in line] == []
    assert glob.glob(f"/sys/fs/cgroup/**/*{known.hex[:12]}*", recursive=True) == []
    again = old.boot("upgradeconverter=off", units={"collect.service": rig._RIG["collect.service"]})
    assert [name for name, unit in again.units.items() if unit.active == "failed"] == []
