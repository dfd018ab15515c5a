"""The agents' users, their ids in the settings, and the folder in /run fit the packs, and are understood by systemd."""

from __future__ import annotations

import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from migrations.eve import PACK
from tests.support.starting import CHECKOUT
from upgradeconverter.model.layout import access
from upgradeconverter.settings import load

if TYPE_CHECKING:
    from pathlib import Path

INIT = CHECKOUT / "init"
USERS, FOLDERS, SETTINGS = (
    INIT / "sysusers.d/upgradeconverter.conf",
    INIT / "tmpfiles.d/upgradeconverter.conf",
    INIT / "upgradeconverter.toml",
)
SLOTS = [slot for layout in PACK.layouts.values() for slot in layout.slots]
# The converter itself is root.
NAMED = ({slot.owner for slot in SLOTS} | {reader for slot in SLOTS for reader in slot.readers}) - {"upgradeconverter"}


def rows(text: str, field: int) -> dict[str, int]:
    """Return a number of each row of a file such as /etc/passwd, by name."""
    return {row.split(":")[0]: int(row.split(":")[field]) for row in text.splitlines()}


def scratch(folder: Path) -> Path:
    """Make a root in which nobody but root is known."""
    (folder / "etc").mkdir()
    (folder / "run").mkdir()
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="utf-8")
    (folder / "etc/group").write_text("root:x:0:\n", encoding="utf-8")
    return folder


@pytest.mark.root
def test_users_are_those_of_the_settings(tmp_path: Path) -> None:
    """systemd-sysusers makes a user and a group for each agent that owns or reads state, with the ids of the settings."""
    root = scratch(tmp_path)
    command = ["systemd-sysusers", f"--root={root}", "-"]
    done = subprocess.run(command, input=USERS.read_bytes(), capture_output=True, check=True, timeout=60)
    assert b"conflict" not in done.stderr.lower()
    users = rows((root / "etc/passwd").read_text(encoding="utf-8"), 2)
    groups = rows((root / "etc/group").read_text(encoding="utf-8"), 2)
    agents = load({}, {}, "", str(SETTINGS)).agents
    assert set(agents) == NAMED
    assert {"root": (0, 0), **agents} == {name: (users[name], groups[name]) for name in users}


def test_ids_are_nobody_elses() -> None:
    """Each agent has ids that no other one has, and none is root."""
    agents = load({}, {}, "", str(SETTINGS)).agents
    assert len({ids for pair in agents.values() for ids in pair} - {0}) == len(agents)
    assert agents["volumemgr"] == (1001, 1001)


def test_readers_can_read() -> None:
    """With these ids each place has one group, its readers', and is open to it; without them only root reads."""
    agents = load({}, {}, "", str(SETTINGS)).agents
    for slot in SLOTS:
        granted = access(slot, agents)
        assert granted.uid == agents.get(slot.owner, (0, 0))[0]
        assert granted.is_shared == bool(slot.readers)
        assert {granted.gid} == {agents[reader][1] for reader in slot.readers} or not slot.readers


@pytest.mark.root
def test_folder_is_made(tmp_path: Path) -> None:
    """systemd-tmpfiles makes the folder in /run for root alone, and nothing else anywhere."""
    root = scratch(tmp_path)
    before = set(root.rglob("*"))
    command = ["systemd-tmpfiles", f"--root={root}", "--create", "-"]
    done = subprocess.run(command, input=FOLDERS.read_bytes(), capture_output=True, check=True, timeout=60)
    assert done.stderr == b""
    made = root / "run/upgradeconverter"
    assert set(root.rglob("*")) - before == {made}
    facts = made.stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (0o755, 0, 0)
