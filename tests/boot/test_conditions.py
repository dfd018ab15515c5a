"""The conditions of the units keep the program from being started only where it has nothing to do."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from migrations.eve import PACK
from migrations.eve.layouts import LAYOUTS
from tests.support.running import run
from tests.support.starting import CHECKOUT
from tests.support.trouble import release
from upgradeconverter.engine.places import ENGINE_FOLDER
from upgradeconverter.packs.api import Document
from upgradeconverter.settings import DEFAULT_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PHASES = ("pre-vault", "post-vault")
PHASE = pytest.mark.parametrize("phase", PHASES)
SYSTEM = {"pre-vault": (*PACK.release_files, *PACK.outside.values(), DEFAULT_FILE), "post-vault": (DEFAULT_FILE,)}


def _conditions(phase: str) -> list[str]:
    text = (CHECKOUT / f"init/systemd/upgradeconverter-{phase}.service").read_text(encoding="utf-8")
    return re.findall(r"^Condition.*$", text, re.MULTILINE)


def _is_started(phase: str, top: Path) -> bool:
    """Let systemd itself decide about a unit, on a system whose root is `top`."""
    conditions = [re.sub(r"(?<==)(\|?!?)/", rf"\1{top}/", each) for each in _conditions(phase)]
    done = subprocess.run(["systemd-analyze", "condition", *conditions], capture_output=True, text=True, check=False, timeout=60)
    assert "Conditions " in done.stderr
    return done.returncode == 0


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """Return the root of a system on which nothing was ever converted and nothing is to be converted."""
    (tmp_path / "persist/vault").mkdir(parents=True)
    for name in ("lost+found", "log", "newlog"):
        (tmp_path / "persist" / name).mkdir()
    return tmp_path


def _places(phase: str) -> Iterator[str]:
    """Give every path that the pack reads or writes in a phase, whatever the target."""
    for migration in (migration for migration in PACK.migrations if migration.phase == phase):
        listed = {wanted.key: Document(path=wanted.path, content=b"agent/topic\n") for wanted in migration.inputs}
        named = migration.names(listed, {}) if migration.names is not None else ()
        yield from (f"/persist/{slot.directory}" for slot in (*migration.reads, *migration.writes, *named))
        for wanted in migration.inputs:
            yield f"{PACK.outside[wanted.outside]}/{wanted.path}" if wanted.outside else f"/persist/{wanted.path}"


@PHASE
def test_new_device_starts_no_process(phase: str, device: Path) -> None:
    """Where neither an older system nor the converter has left anything, nothing is started."""
    assert not _is_started(phase, device)


@PHASE
def test_whatever_is_read_starts_the_program(phase: str) -> None:
    """The unit knows a name on the way to any path that a migration reads or writes, and to what else decides."""
    names = _names(_conditions(phase))
    paths = {*_places(phase), *SYSTEM[phase]}
    assert len(paths) > len(names)
    assert [path for path in sorted(paths) if not any(f"{path}/".startswith(f"{name}/") for name in names)] == []


def _names(conditions: list[str]) -> list[str]:
    found = re.findall(r"^Condition(?:PathExistsGlob|DirectoryNotEmpty)=\|(/.*)$", "\n".join(conditions), re.MULTILINE)
    return [str(each) for each in found]


@PHASE
@pytest.mark.parametrize("name", ["stamp", "stamp.new", "journal", "trash", "stage", "manifest", "waiting"])
def test_our_own_files_start_the_program(phase: str, name: str, device: Path) -> None:
    """A stamp, a journal and whatever a run that stopped has left are looked at."""
    (device / "persist" / ENGINE_FOLDER).mkdir()
    (device / "persist" / ENGINE_FOLDER / name).touch()
    assert _is_started(phase, device)


@PHASE
@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_each_name_starts_the_program(phase: str, kind: str, device: Path) -> None:
    """Each name that the unit knows counts, empty directories and links that lead nowhere too."""
    for name in _names(_conditions(phase)):
        if name == "/persist/vault":
            continue
        path = device / name.removeprefix("/")
        made = [folder for folder in reversed(path.parents) if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "directory":
            path.mkdir()
        elif kind == "file":
            path.touch()
        else:
            path.symlink_to("/nowhere")
        assert _is_started(phase, device), name
        path.rmdir() if kind == "directory" else path.unlink()
        for folder in reversed(made):
            folder.rmdir()


@pytest.mark.parametrize("vault", ["locked", "missing", "a file", "a link"])
def test_vault_that_may_hide_something(vault: str, device: Path) -> None:
    """Names that mean nothing in the vault, as of a locked one, or no vault at all: the program says what is wrong."""
    path = device / "persist/vault"
    if vault == "locked":
        (path / "dJp2RkVyYkZ3ZGVtb25hbWU").mkdir()
    else:
        path.rmdir()
    if vault == "a file":
        path.touch()
    elif vault == "a link":
        path.symlink_to("/nowhere")
    assert _is_started("post-vault", device)


@PHASE
def test_words_of_the_kernel_count(phase: str) -> None:
    """What was chosen on the kernel command line is looked at, and the switch still keeps everything away."""
    conditions = _conditions(phase)
    for word in ("!upgradeconverter=off", "|upgradeconverter", "|upgradeconverter.target"):
        assert f"ConditionKernelCommandLine={word}" in conditions


@pytest.mark.parametrize("target", [None, *LAYOUTS])
def test_the_program_would_do_nothing_either(target: str | None, device: Path) -> None:
    """Where no process is started the program finds nothing to do: after the vault for any target, before it without one."""
    top = str(device / "persist")
    with release(str(device / "release"), ""):
        for phase in PHASES if target is None else PHASES[1:]:
            assert not _is_started(phase, device)
            words = () if target is None else ("--target", target)
            status, document = run(phase, "-p", top, "--outside", f"config={top}/none", "--outside", f"eve={top}/none", *words)
            assert (status, document["outcome"], document["skipped"]) == (0, "nothing-to-do", [])
            assert not os.path.exists(f"{top}/img")
            assert set(os.listdir(f"{top}")) <= {"lost+found", "log", "newlog", "vault", ENGINE_FOLDER}
            subprocess.run(["rm", "-rf", f"{top}/{ENGINE_FOLDER}"], check=True)
