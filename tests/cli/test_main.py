"""The outermost layer: whatever happens inside, one report, one documented status, never a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import posix
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from tests.support.olddisk import ENGINE, checked, make_disk, unsynced
from tests.support.running import run
from upgradeconverter import preflight
from upgradeconverter.cli import commands
from upgradeconverter.cli import main as cli
from upgradeconverter.disk import lock
from upgradeconverter.engine.report import Report, as_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyfakefs.fake_filesystem import FakeFilesystem


@pytest.fixture
def top(tmp_path: Path) -> str:
    """Return an old disk."""
    return make_disk(tmp_path / "persist")


def _text(*arguments: str) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), unsynced():
        status = cli.main([*arguments])
    return status, out.getvalue()


def _raising(error: BaseException) -> Callable[[commands.Context], NoReturn]:
    def command(_: commands.Context) -> NoReturn:
        raise error

    return command


def test_kernel_command_line(fs: FakeFilesystem) -> None:
    """The kernel command line is what /proc says, bytes that are no text included; without /proc it is empty."""
    assert cli._kernel_command_line() == ""
    fs.create_file("/proc/cmdline", contents=b"quiet \xff upgradeconverter=off\n")
    assert cli._kernel_command_line().split() == ["quiet", "\ufffd", "upgradeconverter=off"]


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        pytest.param("upgradeconverter=off", "nothing-to-do", id="off"),
        pytest.param("upgradeconverter=dry-run", "planned", id="dry run"),
        pytest.param("upgradeconverter=on", "done", id="on"),
    ],
)
def test_kernel_switch(top: str, words: str, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel command line switches a run off, or makes it a dry run; other commands go on working."""
    monkeypatch.setattr(cli, "_kernel_command_line", lambda: words)
    with unsynced():
        status, document = checked("-p", top, "--target", "latest")
        assert (status, document["outcome"]) == (0, outcome)
        assert os.path.exists(f"{top}/{ENGINE}") == (outcome == "done")
        assert bool(document["warnings"] == ["switched off on the kernel command line"]) == (outcome == "nothing-to-do")
        assert checked("status", "-p", top)[1]["outcome"] == "information"


@pytest.mark.parametrize(
    ("error", "status", "code", "message"),
    [
        pytest.param(RuntimeError("odd"), 6, "Internal", "RuntimeError('odd') in command line", id="mistake"),
        pytest.param(OSError(5, "Input/output error", "place"), 3, "DiskRefused", "place: Input/output error", id="disk"),
        pytest.param(OSError("no number"), 3, "DiskRefused", "the disk: no number", id="disk without a number"),
        pytest.param(RecursionError(), 6, "Internal", "RecursionError", id="too deep"),
        pytest.param(MemoryError(), 6, "Internal", "MemoryError", id="no memory"),
    ],
)
def test_failures_become_reports(top: str, error: Exception, status: int, code: str, message: str, monkeypatch: Any) -> None:
    """A failing disk and a mistake of ours each have a status, a code, and a message that names the place."""
    monkeypatch.setitem(commands.COMMANDS, "status", _raising(error))
    found, document = run("status", "-p", top)
    assert (found, document["error"]["code"]) == (status, code)
    assert message in document["error"]["message"]
    found, text = _text("status", "-p", top)
    assert found == status
    assert f"  {code}: " in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    "words", [["plan"], [], ["status"], ["verify"], ["history"], ["packs"], ["rollback", "-n"], ["rollback"]]
)
def test_text_for_people(top: str, words: list[str]) -> None:
    """Every command has a text: command, phase and outcome first, and nothing that does not show."""
    if words not in (["plan"], []):
        _text("-p", top, "--target", "latest")
    status, text = _text(*words, "-p", top, "--target", "latest")
    first, *lines = text.splitlines()
    assert status == 0
    assert first.startswith(f"{words[0] if words and words[0] != '-n' else 'run'} all: ")
    assert lines
    assert text.replace("\n", "").isprintable()


def test_names_cannot_forge_a_report() -> None:
    """Line breaks, control sequences and bytes that are no text are shown, not carried out."""
    report = Report(command="run")
    name = "img/a\n  skipped: nothing\x1b[2J" + os.fsdecode(b"\xff")
    item = {"migration": "m", "operation": "Move", "transfer": "copy", "status": "done", "undo": "never", "size": 0}
    report.items = [{**item, "source": name, "target": "vault/volumes/x\r"}]
    report.skipped = [{"path": name, "reason": "InUse", "detail": name}]
    report.warnings, report.details = [name], {"deviations": [name], "stamp": name}
    report.recovered = [{"txid": name, "last": "staged", "result": "undone"}]
    report.error = {"code": "DiskFailed", "message": name, "hint": "None."}
    text = as_text(report)
    assert text.replace("\n", "").isprintable()
    assert [line for line in text.splitlines() if line.startswith("  skipped")] == []
    assert text.encode() == text.encode("utf-8", "strict")


def test_closed_pipe() -> None:
    """When nobody reads the report the status is still the report's, and there is no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "upgradeconverter", "packs"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_lock_in_the_engine_folder(top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /run cannot be written the lock lies in the engine's own folder, and holds there too."""
    monkeypatch.setattr(lock, "lock_path", lambda _: None)
    with unsynced():
        assert checked("-p", top, "--target", "latest")[1]["outcome"] == "done"
        fd = os.open(top, os.O_RDONLY)
        with lock.held(f"{top}/{ENGINE}/lock", fd):
            status, document = checked("-p", top, "--target", "latest")
        os.close(fd)
    assert (status, document["error"]["code"]) == (5, "LockHeld")


def test_lock_file_is_no_link(tmp_path: Path) -> None:
    """A link in the place of the lock does not lead to the emptying of what it names."""
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    fd = os.open(tmp_path, os.O_RDONLY)
    with contextlib.suppress(OSError), lock.held(str(tmp_path / "lock"), fd):
        pass
    os.close(fd)
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_packs_lists_layouts_and_migrations() -> None:
    """The list of packs names each with its layouts and migrations."""
    lines = checked("packs")[1]["details"]["packs"]
    assert lines[0].startswith("eve: ")
    assert "Layouts: legacy, 5.1.0, design, 5.7.0, 5.7.1, " in lines[0]
    assert "(default design" in lines[0]
    assert any(line.startswith("eve: eve-verified-typed (post-vault, 9.4.11 to before 9.5.0, ") for line in lines)


@pytest.mark.parametrize(
    ("argv", "environment", "kernel", "settings", "asked"),
    [
        pytest.param([], {}, "ro", "", {"persist": "/persist", "asked": ""}, id="plain"),
        pytest.param(
            ["post-vault", "-p", "/x", "--target", "latest"], {}, "", "", {"persist": "/x", "asked": "latest"}, id="boot"
        ),
        pytest.param(["-p", "/x"], {}, "", "1 2 3", {"persist": "/x", "config": "1 2 3"}, id="settings"),
        pytest.param([], {}, "", "1 2 3", None, id="settings may name the root"),
        pytest.param(["plan"], {}, "", "", None, id="command"),
        pytest.param(["--strict"], {}, "", "", None, id="option"),
        pytest.param([], {"UPGRADECONVERTER_TARGET": "latest"}, "", "", None, id="environment"),
        pytest.param([], {}, "ro upgradeconverter.target=5.7.0", "", None, id="kernel command line"),
    ],
)
def test_early_leave(
    argv: list[str],
    environment: dict[str, str],
    kernel: str,
    settings: str,
    asked: dict[str, str] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stamp is asked only about a plain boot invocation, and exactly about that one."""
    for inherited in [name for name in posix.environ if name.startswith(b"UPGRADECONVERTER_")]:
        monkeypatch.delitem(posix.environ, inherited)
    for name, value in environment.items():
        monkeypatch.setitem(posix.environ, os.fsencode(name), os.fsencode(value))
    monkeypatch.setattr("upgradeconverter.preflight.signature", lambda _: settings)
    monkeypatch.setattr("upgradeconverter.preflight.read_words", lambda _: kernel.split())
    questions: list[dict[str, str]] = []

    def answer(persist: str, _: str, expected: dict[str, str], **__: bool) -> str:
        questions.append({"persist": persist, **expected})
        return "nothing to do"

    monkeypatch.setattr("upgradeconverter.preflight.answer", answer)
    assert preflight.find_answer(argv) == (None if asked is None else "nothing to do")
    assert [{**each, **(asked or {})} for each in questions] == questions
    assert bool(questions) is (asked is not None)
