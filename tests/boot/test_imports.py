"""A start with nothing to do imports one small module and leaves, however it is started; what cannot be decided goes on."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.cases import disk_of, load_cases
from tests.support.running import run
from tests.support.starting import ISOLATED, SCRIPT, Start, lay_out, line_of, start

ALLOWED = frozenset({"upgradeconverter", "upgradeconverter.preflight"})
CASE = next(case for case in load_cases("eve") if case.name == "multi_drive_app")
# By the installed command, and by the line of the boot units.
WAYS = pytest.mark.parametrize("flags", [pytest.param((), id="command"), pytest.param(ISOLATED, id="unit")])


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the program as it is installed."""
    return str(lay_out(tmp_path_factory.mktemp("installed")))


@WAYS
@pytest.mark.root
@pytest.mark.parametrize("phase", ["pre-vault", "post-vault", "all"])
def test_nothing_to_do_imports_only_the_preflight(phase: str, flags: tuple[str, ...], script: str, tmp_path: Path) -> None:
    """After a conversion the next start leaves early, has imported nothing but the preflight, and says what the program says."""
    with disk_of(CASE, tmp_path, "plain") as top:
        arguments = ("-p", top, "--target", "latest")
        assert run(*arguments)[1]["outcome"] == "done"
        for each in ("pre-vault", "post-vault", "all"):
            run(each, *arguments)
        more = ("--deadline", "1800", "--quiet")
        as_text, as_json = (start((*flags, script), phase, *arguments, f"--output={form}", *more) for form in ("text", "json"))
        status, document = run(phase, *arguments)
        (tmp_path / "persist/.upgradeconverter/stage").mkdir()
        full = start((*flags, script), phase, *arguments)
    assert (as_text.modules, as_json.modules) == (ALLOWED, ALLOWED)
    assert full.modules > ALLOWED
    assert (as_text.said, as_text.status, as_text.errors) == (full.said, full.status, "")
    assert full.status == status
    assert json.loads(as_json.said) == {**document, "run": None}


@pytest.mark.root
@pytest.mark.parametrize("trap", ["img", "leftover", "stamp", "other target", "strict", "deadline"])
def test_a_tripwire_forbids_the_early_exit(trap: str, script: str, tmp_path: Path) -> None:
    """A new legacy file, a working folder, a damaged stamp, another target or option each lead to the full program."""
    with disk_of(CASE, tmp_path, "plain") as top:
        run("-p", top, "--target", "latest")
        arguments = ["-p", top, "--target", "latest"]
        if trap == "img":
            # What was emptied is gone; an older system makes it anew.
            (tmp_path / "persist/img").mkdir(exist_ok=True)
            (tmp_path / "persist/img/new").write_bytes(b"")
        elif trap == "leftover":
            (tmp_path / "persist/.upgradeconverter/trash").mkdir()
        elif trap == "stamp":
            stamp = tmp_path / "persist/.upgradeconverter/stamp"
            stamp.write_bytes(stamp.read_bytes()[:-5])
        elif trap == "strict":
            arguments.append("--strict")
        elif trap == "deadline":
            # What is no number is refused by the full program.
            arguments += ["--deadline", "soon"]
        else:
            arguments[-1] = "5.7.1"
        assert _is_full(start((*ISOLATED, script), *arguments))


@pytest.mark.root
def test_what_may_pass_is_looked_at_again(script: str, tmp_path: Path) -> None:
    """After an item was left for want of space the next start looks again, and finds the space."""
    with disk_of(CASE, tmp_path, "plain") as top:
        os.makedirs(f"{top}/vault", exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", f"{top}/vault"], check=True)
        try:
            first = run("-p", top, "--target", "latest")[1]
            assert "NoSpace" in {skip["reason"] for skip in first["skipped"]}
            subprocess.run(["mount", "-o", "remount,size=64m", f"{top}/vault"], check=True)
            second = start((*ISOLATED, script), "-p", top, "--target", "latest")
            assert _is_full(second)
            assert second.said.startswith("run all: done\n")
        finally:
            subprocess.run(["umount", "-l", f"{top}/vault"], check=True)


def _is_full(started: Start) -> bool:
    return started.modules > ALLOWED and "upgradeconverter.engine.session" in started.modules


@pytest.mark.parametrize(
    ("flags", "installed"),
    [
        pytest.param((), True, id="command"),
        pytest.param(ISOLATED, True, id="unit"),
        pytest.param(ISOLATED, False, id="unit of a package that lies elsewhere"),
        pytest.param(("-S",), True, id="without site"),
        pytest.param(("-I",), False, id="isolated"),
    ],
)
def test_undecided_goes_on(flags: tuple[str, ...], installed: bool, script: str, tmp_path: Path) -> None:
    """Where the preflight cannot decide the full program starts, whatever the flags, and finds what it depends on."""
    program = script if installed else str(SCRIPT)
    done = start((*flags, program), "-p", str(tmp_path), "--target", "latest", "--output=json", "-n")
    assert (done.status, done.errors) == (0, "")
    assert json.loads(done.said)["outcome"] == "nothing-to-do"


@WAYS
def test_the_package_is_started_alike(flags: tuple[str, ...], script: str) -> None:
    """`python -m upgradeconverter` says what the command says, with the same status."""
    by_name = start(("-m", "upgradeconverter"), "--version")
    by_script = start((*flags, script), "--version")
    assert (by_name.status, by_name.said, by_name.errors) == (by_script.status, by_script.said, by_script.errors) != (1, "", "")


@WAYS
def test_nothing_is_imported_from_the_working_directory(flags: tuple[str, ...], script: str, tmp_path: Path) -> None:
    """Modules that somebody puts where the program is started, or beside the script, are never imported."""
    beside = Path(script).parent
    names = ("upgradeconverter", "posix", "site", "json", "structlog", "argparse", "preflight", "sitecustomize")
    files = [folder / f"{name}.py" for folder in (tmp_path, beside) for name in names]
    try:
        for file in files:
            file.write_text(f"raise SystemExit({str(file)!r})\n", encoding="utf-8")
        done = start((*flags, script), "-p", str(tmp_path), "-n", folder=str(tmp_path))
    finally:
        for file in files:
            file.unlink()
    assert (done.status, done.errors) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["pre-vault", "-p", "/x"], ("pre-vault", "/x", "", "text", "0", "", "keep"), id="as EVE calls it"),
        pytest.param(
            ["--persist=/x", "--output", "json"], ("all", "/x", "", "json", "0", "", "keep"), id="both ways of giving a value"
        ),
        pytest.param(
            ["post-vault", "--trial", "--deadline", "1800", "--report=/r", "--on-failure", "take-back"],
            ("post-vault", "", "", "text", "1800", "/r", "take-back"),
            id="as the units do",
        ),
        pytest.param(["--quiet", "--deadline=0"], ("all", "", "", "text", "0", "", "keep"), id="what only an act is about"),
        pytest.param(["-p"], None, id="value missing"),
        pytest.param(["--persist="], None, id="value empty"),
        pytest.param(["-n"], None, id="dry run"),
        pytest.param(["verify"], None, id="command"),
    ],
)
def test_only_plain_invocations_may_leave_early(arguments: list[str], words: tuple[str, ...] | None) -> None:
    """Whatever is not a plain run is left to the full command line."""
    from upgradeconverter.preflight import words_of

    found = words_of(arguments)
    assert (None if found is None else tuple(found.values())) == words


@pytest.mark.parametrize("unit", ["pre-vault", "post-vault"])
def test_units_may_leave_early(unit: str) -> None:
    """The preflight knows every word with which a boot unit starts the program."""
    from upgradeconverter.preflight import words_of

    found = words_of(line_of(unit).split("/bin/upgradeconverter ")[1].split())
    assert found is not None
    assert (found["phase"], found["--report"]) == (unit, "/run/upgradeconverter")


def test_preflight_believes_nothing_without_a_stamp(tmp_path: Path) -> None:
    """A directory without a stamp, and one that does not exist, always mean the full program."""
    from upgradeconverter.preflight import answer

    expected = {"pack": "eve", "asked": "", "release": "", "config": ""}
    assert answer(str(tmp_path), "all", expected, form="text") is None
    assert answer(str(tmp_path / "none"), "all", expected, form="json") is None
