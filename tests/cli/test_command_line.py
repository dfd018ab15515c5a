"""The command line as people and tools use it: words, statuses, one JSON document whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from msgspec.structs import replace

import upgradeconverter
from tests.support.cases import disk_of, load_cases
from tests.support.disktree import capture
from tests.support.running import run
from upgradeconverter.engine.stamp import decode, encode
from upgradeconverter.model.outcome import CATALOGUE, ItemStatus, Outcome, Reason

SCHEMA: dict[str, Any] = json.loads((Path(upgradeconverter.__file__).parent / "schema.json").read_text())
EFFECTS = (
    "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,fdatasync,syncfs,pwrite64,chown,fchown,fchownat,chmod,"
    "fchmod,fchmodat,utimensat,setxattr,lsetxattr,removexattr,lremovexattr,linkat,symlinkat,mknodat,ftruncate"
)


def _case(name: str) -> Any:
    return next(case for case in load_cases("eve") if case.name == name)


@pytest.mark.parametrize(
    ("arguments", "status", "outcome"),
    [
        pytest.param(["postvault"], 2, "usage", id="misspelt phase"),
        pytest.param(["--nonsense"], 2, "usage", id="unknown option"),
        pytest.param(["plan", "all", "more"], 2, "usage", id="too many words"),
        pytest.param(["-p", "/nonexistent"], 3, "refused", id="no such directory"),
        pytest.param(["--pack", "none"], 2, "usage", id="unknown pack"),
        pytest.param(["--deadline", "soon"], 2, "usage", id="deadline that is no number"),
        pytest.param(["--deadline=-5"], 2, "usage", id="deadline in the past"),
        pytest.param(["-p", "/", "plan", "--target", "4.x"], 2, "usage", id="unknown layout"),
    ],
)
def test_bad_input_is_refused_by_name(arguments: list[str], status: int, outcome: str) -> None:
    """Every refusal has its status and is still exactly one valid document."""
    found, document = run(*arguments)
    jsonschema.validate(document, SCHEMA)
    assert (found, document["outcome"]) == (status, outcome)
    assert document["error"]["hint"]


def test_schema_knows_every_word() -> None:
    """Reasons, outcomes and item states of the schema are those of the model, and each reason has its sentences."""
    properties = SCHEMA["properties"]
    assert set(properties["outcome"]["enum"]) == {outcome.value for outcome in Outcome}
    assert properties["skipped"]["items"]["properties"]["reason"]["enum"] == [reason.value for reason in Reason]
    assert set(properties["items"]["items"]["properties"]["status"]["enum"]) == {status.value for status in ItemStatus}
    assert set(CATALOGUE) == set(Reason)


@pytest.mark.root
def test_every_document_of_a_conversion_is_valid(tmp_path: Path) -> None:
    """Audit, run, status, verify, history, rollback and packs each print one document that fits the schema."""
    with disk_of(_case("sample_device"), tmp_path, "plain") as top:
        arguments = ("-p", top, "--target", "latest")
        for words in (["-n"], [], ["status"], ["verify"], ["history"], ["packs"], ["rollback"], ["history"]):
            status, document = run(*words, *arguments)
            jsonschema.validate(document, SCHEMA)
            assert status == 0, document


@pytest.mark.root
def test_strict_makes_what_is_left_a_failure(tmp_path: Path) -> None:
    """With --strict an item left alone gives status 1, without it 0."""
    with disk_of(_case("unmatched_volume"), tmp_path, "plain") as top:
        assert run("-p", top, "--target", "latest")[0] == 0
        assert run("-p", top, "--target", "latest", "--strict")[0] == 1


@pytest.mark.root
def test_second_instance_is_told_that_one_runs(tmp_path: Path) -> None:
    """While the lock is held another start ends with status 5 and names the holder."""
    from upgradeconverter.disk import lock

    with disk_of(_case("vm_qcow2_basic"), tmp_path, "plain") as top:
        fd = os.open(top, os.O_RDONLY)
        path = lock.lock_path(fd)
        assert path is not None
        with lock.held(path, fd):
            status, document = run("-p", top)
        os.close(fd)
    assert (status, document["error"]["code"]) == (5, "LockHeld")
    assert str(os.getpid()) in document["error"]["message"]


@pytest.mark.root
def test_second_instance_that_sees_another_run_folder(tmp_path: Path) -> None:
    """Inside and outside of a container /run differs; the directory that is worked on is the same, and is locked too."""
    from upgradeconverter.disk import lock

    with disk_of(_case("vm_qcow2_basic"), tmp_path, "plain") as top:
        before = capture(top, engine=True)
        fd = os.open(top, os.O_RDONLY)
        with lock.held(str(tmp_path / "other.lock"), fd):
            status, document = run("-p", top)
        os.close(fd)
        assert capture(top, engine=True) == before
    assert (status, document["error"]["code"]) == (5, "LockHeld")


@pytest.mark.root
def test_dry_run_makes_no_effective_system_call(tmp_path: Path) -> None:
    """Under strace a dry run shows not one call that could change a file system, and it works on a read-only mount."""
    with disk_of(_case("sample_device"), tmp_path, "plain") as top:
        subprocess.run(["mount", "--bind", top, top], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", top], check=True)
            before = capture(top, engine=True)
            trace = tmp_path / "trace"
            command = ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={EFFECTS},openat"]
            command += [sys.executable, "-m", "upgradeconverter", "-n", "-p", top, "--target", "latest", "--output", "json"]
            # Measuring coverage writes files of its own.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            assert capture(top, engine=True) == before
        finally:
            subprocess.run(["umount", "-l", top], check=True)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["outcome"] == "planned"
    lines = trace.read_text(errors="replace").splitlines()
    assert any("openat" in line for line in lines)
    assert [line for line in lines if "openat" not in line or "O_CREAT" in line or "O_WRONLY" in line or "O_RDWR" in line] == []


@pytest.mark.root
@pytest.mark.parametrize("phase", ["pre-vault", "post-vault", "all"])
def test_each_phase_alone_is_harmless(phase: str, tmp_path: Path) -> None:
    """EVE's own invocations work; the phase before the vault never touches it."""
    with disk_of(_case("sample_device"), tmp_path, "fscrypt") as top:
        before = capture(f"{top}/vault", engine=True)
        status, document = run(phase, "-p", top, "--target", "latest")
        assert status == 0, document
        if phase == "pre-vault":
            assert {item["target"].split("/")[0] for item in document["items"] if item["target"]} == {"status"}
            assert capture(f"{top}/vault", engine=True) == before


@pytest.mark.root
def test_missing_vault_leaves_everything_and_makes_nothing(tmp_path: Path) -> None:
    """Without a vault directory the run refuses, and in no case makes one."""
    with disk_of(_case("vm_qcow2_basic"), tmp_path, "plain") as top:
        os.rmdir(f"{top}/vault")
        before = capture(top, engine=True)
        status, document = run("post-vault", "-p", top, "--target", "latest")
        assert (status, document["error"]["code"]) == (3, "VaultMissing")
        assert capture(top, engine=True) == before


@pytest.mark.root
def test_design_layout_moves_on_to_a_release(tmp_path: Path) -> None:
    """What was converted to the design's names takes a release's names later, with the recorded formats."""
    with disk_of(_case("sample_device"), tmp_path, "fscrypt") as top:
        assert run("-p", top, "--target", "design")[0] == 0
        assert run("-p", top, "--target", "16.12.0-kvm-amd64")[0] == 0
        volumes = sorted(os.listdir(f"{top}/vault/volumes") + os.listdir(f"{top}/clear/volumes"))
        assert [name.rpartition(".")[2] for name in volumes] == ["raw", "qcow2", "container"]
        assert run("-p", top, "--target", "design")[1]["error"]["code"] == "NoPath"


@pytest.mark.root
def test_a_newer_stamp_is_refused(tmp_path: Path) -> None:
    """A stamp with a layout that this engine does not know means that a newer one was here."""
    with disk_of(_case("vm_qcow2_basic"), tmp_path, "plain") as top:
        assert run("-p", top, "--target", "latest")[0] == 0
        stamp = Path(top) / ".upgradeconverter/stamp"
        stamp.write_bytes(encode(replace(decode(stamp.read_bytes()), layout="99.0.0")))
        assert run("-p", top, "--target", "latest", "-n")[1]["error"]["code"] == "UnknownNewerLayout"
