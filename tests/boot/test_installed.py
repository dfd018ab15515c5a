"""What pip installs from the wheel starts by the line of the boot units, decides at once, and goes on where it has to."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests.support.olddisk import make_disk
from tests.support.starting import CHECKOUT, INSTALLED, PACKAGES, line_of, start

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


@pytest.mark.parametrize("unit", ["", "pre-vault", "post-vault"])
def test_installed_program(unit: str, installed: Path, tmp_path: Path) -> None:
    """The command converts; after that command and units look once more, and then import the preflight and nothing else."""
    python, program = f"{installed}/bin/python3", f"{installed}/bin/upgradeconverter"
    words = ("-p", make_disk(tmp_path / "persist"), "--target", "latest")
    first = start((program,), *words, "--output=json", python=python)
    assert (first.status, json.loads(first.said)["outcome"]) == (0, "done")
    typed = f"{python} {program} --report /run/upgradeconverter"
    line = (line_of(unit) if unit else typed).replace("/run/", f"{tmp_path}/").replace(INSTALLED, str(installed)).split()
    report = tmp_path / f"upgradeconverter/{unit or 'all'}.json"
    place = line.index(program) + 1
    starts = []
    for _ in range(2):
        starts.append(start(line[1:place], *line[place:], *words, python=line[0]))
        assert json.loads(report.read_text(encoding="utf-8"))["outcome"] == "nothing-to-do"
    second, third = starts
    assert (second.status, third.status, third.errors) == (0, 0, "")
    # Nobody had asked for one phase, or for a report, yet: that start goes on, and finds what the program depends on.
    assert second.modules > ALLOWED
    assert third.modules == ALLOWED


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
