"""What pip installs from the wheel starts by the line of the boot units, decides at once, and goes on where it has to."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests.support.olddisk import make_disk
from tests.support.starting import CHECKOUT, ISOLATED, PACKAGES, start

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
ALLOWED = frozenset({"upgradeconverter", "upgradeconverter.preflight"})


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clean environment with the wheel in it, and with what it depends on by a path that only `site` reads."""
    top = tmp_path_factory.mktemp("wheel")
    environment = top / "environment"
    for command in (
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(top), str(CHECKOUT)],
        [sys.executable, "-m", "venv", "--without-pip", str(environment)],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=240)
    (wheel,) = top.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(environment), "install", "--no-deps", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, timeout=120)
    (environment / PACKAGES / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return environment


@pytest.mark.parametrize("flags", [pytest.param((), id="command"), pytest.param(ISOLATED, id="unit")])
def test_installed_program(flags: tuple[str, ...], installed: Path, tmp_path: Path) -> None:
    """A first start converts, a second one finds nothing left; the third imports the preflight and nothing else."""
    top = make_disk(tmp_path / "persist")
    words = ("-p", top, "--target", "latest", "--output=json")
    program, python = str(installed / "bin/upgradeconverter"), str(installed / "bin/python3")
    first, second, third = (start((*flags, program), *words, python=python) for _ in range(3))
    assert (first.status, json.loads(first.said)["outcome"]) == (0, "done")
    assert (second.status, json.loads(second.said)["outcome"]) == (0, "nothing-to-do")
    assert (third.status, third.modules, third.errors) == (0, ALLOWED, "")


def test_byte_code_is_installed(installed: Path) -> None:
    """No start has to compile, which most cannot keep: the system is read-only at boot."""
    (record,) = (installed / PACKAGES).glob("upgradeconverter-*.dist-info/RECORD")
    assert f"upgradeconverter/__pycache__/preflight.{sys.implementation.cache_tag}.pyc," in record.read_text(encoding="utf-8")


def test_installed_command_is_the_script(installed: Path) -> None:
    """The command is our own script with the interpreter of its environment, and may be started by a link."""
    command = installed / "bin/upgradeconverter"
    first, rest = command.read_text(encoding="utf-8").split("\n", 1)
    assert first.startswith(f"#!{installed}/bin/python")
    assert rest == (CHECKOUT / "init/bin/upgradeconverter.py").read_text(encoding="utf-8").split("\n", 1)[1]
    link = installed.parent / "link"
    link.symlink_to(command)
    done = subprocess.run([link, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("upgradeconverter ")
