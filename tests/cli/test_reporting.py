"""What a boot leaves behind: report, figures, one line in the log, entries in the journal, and no name of the vault."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import stat
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from tests.support.olddisk import DIGEST, ENGINE, IMAGE, SCHEMA, checked, fake_vault, make_disk, unsynced, write
from tests.support.starting import CHECKOUT
from upgradeconverter import log, preflight
from upgradeconverter.cli.main import main
from upgradeconverter.engine.conceal import HINT, Concealer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HIDDEN = "name that only the vault knows"
# The text format of Prometheus, as far as it is used: a comment, or a figure with labels and a number.
LINE = re.compile(r'# (HELP|TYPE) [a-z_]+ .+|[a-z_]+\{([a-z]+="[^"\\\n]*",?)+\} [0-9.]+')


@pytest.fixture(autouse=True)
def _vault() -> Iterator[None]:
    with unsynced(), fake_vault():
        yield


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Return the old disk, with something in the vault that fits no rule."""
    make_disk(tmp_path / "persist")
    write(tmp_path / f"persist/vault/volumes/{HIDDEN}", b"x")
    return tmp_path / "persist"


def _boot(top: Path, *words: str) -> tuple[int, str]:
    """Start as a unit does, in this process; returns status and what was said."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["-p", str(top), "--target", "latest", "--report", str(top.parent / "run"), *words])
    return status, out.getvalue() + err.getvalue()


def _left(top: Path, name: str) -> tuple[dict[str, Any], str]:
    folder = top.parent / "run"
    document = json.loads((folder / f"{name}.json").read_text())
    jsonschema.validate(document, SCHEMA)
    return document, (folder / f"{name}.prom").read_text()


def _figure(text: str, name: str, **labels: str) -> float:
    wanted = {f'{key}="{value}"' for key, value in labels.items()}
    for line in text.splitlines():
        head, _, value = line.rpartition(" ")
        if head.startswith(f"upgradeconverter_{name}{{") and wanted <= set(head.partition("{")[2].rstrip("}").split(",")):
            return float(value)
    message = f"no {name} with {labels} in {text}"
    raise AssertionError(message)


def test_report_and_figures(top: Path) -> None:
    """After a conversion both say what was done, in formats that others read; the log has one line."""
    status, said = _boot(top)
    document, figures = _left(top, "all")
    assert (status, document["outcome"]) == (0, "done")
    assert all(LINE.fullmatch(line) for line in figures.splitlines()), figures
    assert _figure(figures, "exit_status", phase="all") == 0
    assert _figure(figures, "items_total", phase="all", status="done") == len(document["items"])
    assert _figure(figures, "converted_bytes_total", phase="all") > 0
    assert _figure(figures, "left_items", phase="all", reason="NameNotRecognised") == 1
    assert _figure(figures, "duration_seconds", phase="all") > 0
    number = len(document["items"])
    assert [line for line in said.splitlines() if not line.startswith("{")] == [
        f"all: done, {number} of {number} items, 1 left alone; {top.parent}/run/all.json has the report"
    ]


def test_figures_name_each_thing_once(top: Path) -> None:
    """The collector refuses a file in which a name is described twice, or its figures do not stand together."""
    _boot(top)
    names = [line.split()[2] for line in _left(top, "all")[1].splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


def test_who_may_read(top: Path) -> None:
    """The report is for root, the figures are for all."""
    _boot(top)
    modes = {name: stat.S_IMODE((top.parent / "run" / name).stat().st_mode) for name in ("all.json", "all.prom")}
    assert modes == {"all.json": 0o600, "all.prom": 0o644}
    assert stat.S_IMODE((top.parent / "run").stat().st_mode) == 0o755
    assert sorted(os.listdir(top.parent / "run")) == ["all.json", "all.prom"]


def test_failure_is_told(top: Path) -> None:
    """A start that is refused leaves report and figures too, logs an event, and says so in its line."""
    status, said = _boot(top, "--target", "nonsense")
    document, figures = _left(top, "all")
    assert (status, document["error"]["code"]) == (2, "BadLayout") or status in (2, 3)
    assert _figure(figures, "exit_status") == status
    assert '"event": "start-failed"' in said
    assert f"status {status}" in said


def test_each_command_has_its_file(top: Path) -> None:
    """What a boot does later does not overwrite what it did before."""
    _boot(top, "--trial")
    _boot(top, "confirm")
    assert _left(top, "all")[0]["command"] == "run"
    assert _left(top, "confirm")[0]["command"] == "confirm"


def test_place_that_refuses(top: Path) -> None:
    """A directory that nothing can be put into makes no failure of what was done."""
    (top.parent / "run").write_text("a file\n")
    status, said = _boot(top)
    assert status == 0
    assert "could not be left in" in said
    assert not (top / IMAGE).exists()


def test_old_report_does_not_stay(top: Path) -> None:
    """What cannot be replaced is at least removed: an old report would say that all is well."""
    _boot(top)
    report = top.parent / "run/all.json"
    report.unlink()
    report.mkdir()
    (report / "inside").touch()
    status, said = _boot(top, "--target", "nonsense")
    assert (status, "could not be left in" in said) == (2, True)
    assert _figure((top.parent / "run/all.prom").read_text(), "exit_status") == 2
    assert "BadLayout" in said or "Unknown" in said


def test_failure_is_marked(top: Path) -> None:
    """By a file beside the report units see that a phase failed, until it does not any more."""
    _boot(top, "--target", "nonsense")
    assert (top.parent / "run/all.failed").exists()
    _boot(top)
    assert not (top.parent / "run/all.failed").exists()


def test_command_line_that_is_not_understood(top: Path) -> None:
    """Also what cannot be read as a command line leaves its report, under the name of what it may have been."""
    status, said = _boot(top, "--bogus")
    assert (status, _left(top, "all")[0]["error"]["code"]) == (2, "Usage")
    assert '"event": "start-failed"' in said
    _boot(top, "nonsense")
    assert sorted(os.listdir(top.parent / "run")) == ["all.failed", "all.json", "all.prom"]


def test_vault_keeps_its_names(top: Path) -> None:
    """What only an encrypted vault knows appears in no report, no figure, no event and no line; what came from outside does."""
    status, said = _boot(top, "--debug")
    document, figures = _left(top, "all")
    everything = said + json.dumps(document) + figures
    assert status == 0
    assert HIDDEN not in everything
    assert "vault/volumes/<hidden 1>" in [skip["path"] for skip in document["skipped"]]
    assert HINT in document["warnings"]
    assert any(item["source"] == IMAGE and item["target"].startswith("vault/volumes/") for item in document["items"])
    assert DIGEST in json.dumps(document)


@pytest.mark.parametrize("code", ["DiskRefused", "Wedged", "Internal"])
def test_errors_keep_the_names(code: str) -> None:
    """A message may name what lies in a tree by the path inside of it; only what the disk said is told."""
    error = {"code": code, "message": f"rootfs/{HIDDEN}: Bad message; nothing was changed", "hint": "h"}
    document = {"items": [], "skipped": [], "warnings": [f"{code}: {HIDDEN}"], "error": error}
    told = Concealer("vault", set()).document(document)
    assert HIDDEN not in json.dumps(told)
    assert "Bad message" in told["error"]["message"]


def test_who_asks_is_told(top: Path) -> None:
    """The same names are told to a person who asks on the device."""
    _boot(top)
    assert HIDDEN in json.dumps(checked("plan", "-p", str(top), "--target", "latest")[1])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rename vault/volumes/my secret: No space left on device", "rename vault/volumes/<hidden 1>: No space left on device"),
        ("vault/volumes/Payroll: ACME.xls: is in use", "vault/volumes/<hidden 1>"),
        ("/persist/vault/volumes/x", "vault/volumes/<hidden 1>"),
        ("expected vault/volumes, found it", "expected vault/volumes, found it"),
        ("'vault/volumes/a b' and vault/volumes/c", "'vault/volumes/<hidden 1>"),
        ("unsealed-vault/nim/x is no vault", "unsealed-vault/nim/x is no vault"),
    ],
)
def test_sentences_keep_the_names(text: str, told: str) -> None:
    """In a sentence a path inside the vault is told by its place, and what follows only if it is what a disk says."""
    assert Concealer("vault", {"vault/volumes"}).text(text) == told


def test_plain_vault_conceals_nothing() -> None:
    """Where the vault is no vault, everything is told."""
    assert Concealer("", {"vault/volumes"}).text("vault/volumes/x") == "vault/volumes/x"


def test_idle_start_leaves_both(top: Path) -> None:
    """A start with nothing to do leaves report and figures without the full program, and says nothing at all."""
    (top / f"vault/volumes/{HIDDEN}").unlink()
    _boot(top)
    for file in (top.parent / "run").iterdir():
        file.write_text("old\n")
    words = ("all", "-p", str(top), "--target", "latest", "--report", str(top.parent / "run"))
    # What was converted behind the pretended vault is looked at by a process that knows of none.
    checked("-p", str(top), "--target", "latest")
    said = preflight.find_answer(list(words))
    assert said is not None
    assert preflight._leave_report(str(top.parent / "run"), "all", said, 0.001)
    document, figures = _left(top, "all")
    assert document["outcome"] == "nothing-to-do"
    assert _figure(figures, "exit_status", phase="all") == 0
    assert all(LINE.fullmatch(line) for line in figures.splitlines()), figures


# --- the journal of systemd ------------------------------------------------------------------------------------------------


@contextmanager
def _journal(scratch: Path) -> Iterator[socket.socket]:
    """Listen as systemd's journal does, and let standard error lead there."""
    place = str(scratch / "journal")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
        (scratch / "stderr").open("w") as stream,
        pytest.MonkeyPatch.context() as patch,
    ):
        listener.bind(place)
        listener.settimeout(5)
        facts = os.fstat(stream.fileno())
        patch.setattr(log, "_JOURNAL", place)
        patch.setenv("JOURNAL_STREAM", f"{facts.st_dev}:{facts.st_ino}")
        patch.setattr(sys, "stderr", stream)
        patch.setattr(log, "_bound", {"run": "r1"})
        yield listener


def _fields(entry: bytes) -> dict[str, str]:
    """Read an entry as systemd does (its native protocol: NAME=value, or NAME, a length of 8 bytes, and the value)."""
    found: dict[str, str] = {}
    while entry:
        name, _, rest = entry.partition(b"\n")
        if b"=" in name:
            key, _, value = name.partition(b"=")
            entry = rest
        else:
            key, size = name, int.from_bytes(rest[:8], "little")
            value, entry = rest[8 : 8 + size], rest[9 + size :]
        found[key.decode()] = value.decode()
    return found


def test_journal_has_fields(tmp_path: Path) -> None:
    """An event is an entry with a name, an identity, a priority, boot and run, and its fields; standard error stays silent."""
    with _journal(tmp_path) as journal:
        log.event("recovered", txid="1", last="staged", result="un=done\nindeed")
        fields = _fields(journal.recv(1 << 16))
    assert fields["MESSAGE_ID"] == log.EVENTS["recovered"][0]
    assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"]) == ("6", "upgradeconverter")
    assert (fields["UPGRADECONVERTER_EVENT"], fields["UPGRADECONVERTER_RUN"]) == ("recovered", "r1")
    assert fields["UPGRADECONVERTER_RESULT"] == "un=done\nindeed"
    assert re.fullmatch("[0-9a-f]{32}", fields["UPGRADECONVERTER_BOOT"])
    assert fields["MESSAGE"].startswith("recovered ")
    assert (tmp_path / "stderr").read_text() == ""


def test_failures_have_priority(tmp_path: Path) -> None:
    """What went wrong can be found by its priority."""
    with _journal(tmp_path) as journal:
        log.event("start-failed", exit_status=4)
        assert _fields(journal.recv(1 << 16))["PRIORITY"] == "3"


@pytest.mark.parametrize("problem", ["nobody listens", "another stream"])
def test_without_journal(tmp_path: Path, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where standard error leads elsewhere, or nobody takes the entry, the event is a line of JSON."""
    with _journal(tmp_path) as journal:
        if problem == "nobody listens":
            journal.close()
        else:
            monkeypatch.setenv("JOURNAL_STREAM", "1:1")
        log.event("run-done", outcome="done")
    line = json.loads((tmp_path / "stderr").read_text())
    assert (line["event"], line["run"], line["outcome"]) == ("run-done", "r1", "done")
    assert line["boot"]


def test_every_event_is_in_the_table() -> None:
    """Each name that the program logs is in the table of events, with an identity of its own, and none is there for nothing."""
    logged: set[str] = set()
    for file in (CHECKOUT / "upgradeconverter").rglob("*.py"):
        logged |= set(re.findall(r'log\.(?:event|detail)\(\s*"([a-z-]+)"', file.read_text(encoding="utf-8")))
    assert logged == set(log.EVENTS)
    identities = [identity for identity, _ in log.EVENTS.values()]
    assert len(set(identities)) == len(identities)
    assert all(re.fullmatch("[0-9a-f]{32}", identity) for identity in identities)


def test_documented_events() -> None:
    """The documentation lists every event with its identity and meaning, and no other."""
    text = (CHECKOUT / "docs/events.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| `([0-9a-f]{32})` \| ([^|]+) \|$", text, re.MULTILINE)
    assert rows == [(name, *rest) for name, rest in log.EVENTS.items()]


# --- root's power ----------------------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "kept"),
    [("LOOKING", 0x10200004), ("MOVING", 0x1000001F), ("CARRYING", 0x9820021F)],
)
def test_privileges_are_given_up(name: str, kept: int) -> None:
    """Of root's capabilities only those that are needed stay, and nothing can be got back."""
    code = (
        "from upgradeconverter.disk import privileges as p\n"
        f"p.keep_only(p.{name})\n"
        "print(''.join(l for l in open('/proc/self/status') if l[:6] in ('CapEff', 'CapPrm', 'CapInh', 'NoNewP')))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    found = {line.split(":")[0]: int(line.split()[1], 16) for line in told.split("\n") if line}
    assert found == {"CapInh": 0, "CapPrm": kept, "CapEff": kept, "NoNewPrivs": 1}


@pytest.mark.root
@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (("plan",), 0x10200004),
        (("doctor",), 0x10200004),
        (("pre-vault",), 0x1000001F),
        (("post-vault",), 0x9820021F),
        (("rollback",), 0x9820021F),
    ],
)
def test_each_start_keeps_what_it_needs(tmp_path: Path, words: tuple[str, ...], kept: int) -> None:
    """Who only looks can change nothing; a phase that moves settings cannot make devices; one that moves trees can."""
    top = make_disk(tmp_path / "persist")
    code = (
        "import atexit, sys\n"
        "told = lambda: ''.join(line for line in open('/proc/self/status') if line.startswith('CapEff'))\n"
        "atexit.register(lambda: print(told(), file=sys.stderr))\n"
        "from upgradeconverter.__main__ import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, *words, "-p", top, "--target", "latest"]
    told = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False).stderr
    assert int(told.strip().split("\n")[-1].split()[1], 16) == kept, told
    assert not os.path.exists(f"{top}/{ENGINE}") or words[0] not in ("plan", "doctor")
