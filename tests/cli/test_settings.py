"""A setting comes from the nearest source that has it, and a bad one is refused by the name of its source."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from upgradeconverter.errors import EXIT_USAGE, BadSettingError
from upgradeconverter.settings import DEFAULT_FILE, Settings, load

if TYPE_CHECKING:
    from pathlib import Path

    from pyfakefs.fake_filesystem import FakeFilesystem

FLAG = {"target": "flag"}
ENVIRONMENT = {"UPGRADECONVERTER_TARGET": "environment"}
KERNEL = "quiet upgradeconverter.target=kernel ro"
FILE = 'target = "file"\n'


def settings(
    folder: Path,
    *,
    flags: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    kernel: str = "",
    text: str | None = None,
) -> Settings:
    """Return the settings of some sources; a text becomes the file."""
    file = folder / "settings.toml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    return load(flags or {}, environment or {}, kernel, str(file))


@pytest.mark.parametrize(
    ("flags", "environment", "kernel", "text", "expected", "origin"),
    [
        pytest.param(FLAG, ENVIRONMENT, KERNEL, FILE, "flag", "command line", id="flag"),
        pytest.param({"target": None}, ENVIRONMENT, KERNEL, FILE, "environment", "environment", id="environment"),
        pytest.param({}, {}, KERNEL, FILE, "kernel", "kernel command line", id="kernel command line"),
        pytest.param({}, {}, "quiet", FILE, "file", "file ", id="file"),
        pytest.param({}, {}, "", None, None, "", id="default"),
        pytest.param(FLAG, {}, "", FILE, "flag", "command line", id="flag before file"),
        pytest.param({}, {"UPGRADECONVERTER_TARGET": ""}, KERNEL, None, "kernel", "kernel", id="empty is not given"),
    ],
)
def test_precedence(
    tmp_path: Path,
    flags: dict[str, Any],
    environment: dict[str, str],
    kernel: str,
    text: str | None,
    expected: str | None,
    origin: str,
) -> None:
    """Flag, environment, kernel command line, file, default: the first that has a value counts, and is named."""
    found = settings(tmp_path, flags=flags, environment=environment, kernel=kernel, text=text)
    assert found.target == expected
    assert found.origins.get("target", "").startswith(origin)
    assert ("target" in found.origins) == (expected is not None)


def test_defaults(tmp_path: Path) -> None:
    """Without any source everything is as the class says."""
    assert settings(tmp_path) == Settings(file=f"{tmp_path}/settings.toml")


def test_sources_are_joined(tmp_path: Path) -> None:
    """Each source adds what the others do not say."""
    found = settings(
        tmp_path,
        flags={"dry_run": True, "persist": None},
        environment={"UPGRADECONVERTER_PERSIST": "/p", "UPGRADECONVERTER_PACK_ROOT": f"/{os.pathsep}{tmp_path}", "HOME": "/"},
        kernel="upgradeconverter.target=latest",
        text='strict = true\nread_back = "sample"\npack = "other"\ndeadline = 60\nquiet = true\n',
    )
    assert (found.dry_run, found.persist, found.pack_roots) == (True, "/p", ("/", str(tmp_path)))
    assert (found.target, found.strict, found.read_back, found.pack) == ("latest", True, "sample", "other")
    assert (found.deadline, found.quiet) == (60, True)


@pytest.mark.parametrize(
    ("flags", "environment", "kernel", "expected"),
    [
        pytest.param({"deadline": "1800"}, {"UPGRADECONVERTER_DEADLINE": "5"}, "", 1800.0, id="flag"),
        pytest.param({"deadline": "0"}, {"UPGRADECONVERTER_DEADLINE": "5"}, "", 0.0, id="none by flag"),
        pytest.param({}, {"UPGRADECONVERTER_DEADLINE": "0.5"}, "upgradeconverter.deadline=9", 0.5, id="environment"),
        pytest.param({}, {}, "quiet upgradeconverter.deadline=9 ro", 9.0, id="kernel command line"),
        pytest.param({}, {}, "quiet", 7, id="file"),
    ],
)
def test_deadline(tmp_path: Path, flags: dict[str, Any], environment: dict[str, str], kernel: str, expected: float) -> None:
    """A deadline is a number of seconds, from any source; 0 is none."""
    found = settings(tmp_path, flags=flags, environment=environment, kernel=kernel, text="deadline = 7\n")
    assert (found.deadline, found.unknown) == (expected, ())


@pytest.mark.parametrize(
    ("word", "switched_off", "dry_run"),
    [
        pytest.param("upgradeconverter=off", True, False, id="off"),
        pytest.param("upgradeconverter=dry-run", False, True, id="dry-run"),
        pytest.param("upgradeconverter=on", False, False, id="on"),
        pytest.param("upgradeconverter=off upgradeconverter=on", False, False, id="last one counts"),
        pytest.param("upgradeconverterx=off", False, False, id="other word"),
    ],
)
def test_kernel_switch(tmp_path: Path, word: str, switched_off: bool, dry_run: bool) -> None:
    """The kernel command line can switch off, or make a dry run of, every run."""
    found = settings(tmp_path, kernel=f"quiet {word} ro\n")
    assert (found.switched_off, found.dry_run) == (switched_off, dry_run)


def test_file_named_by_the_environment(tmp_path: Path) -> None:
    """The environment may name another file, which is read instead."""
    other = tmp_path / "other.toml"
    other.write_text('target = "other"\n', encoding="utf-8")
    found = settings(tmp_path, environment={"UPGRADECONVERTER_CONFIG": str(other)}, text=FILE)
    assert found.target == "other"


@pytest.mark.parametrize(
    ("environment", "kernel", "text", "words"),
    [
        pytest.param({}, "upgradeconverter=maybe", None, ["kernel command line", "maybe", "dry-run"], id="switch"),
        pytest.param({}, "upgradeconverter", None, ["kernel command line"], id="switch without value"),
        pytest.param({"UPGRADECONVERTER_READ_BACK": "twice"}, "", None, ["environment", "read_back", "twice"], id="read_back"),
        pytest.param({}, "", 'read_back = "twice"\n', ["settings.toml", "read_back", "twice"], id="read_back in file"),
        pytest.param({}, "", "target = \n", ["settings.toml", "TOML"], id="no TOML"),
        pytest.param({}, "", "target = 3\n", ["settings.toml", "target", "3"], id="number for text"),
        pytest.param({}, "", 'strict = "yes"\n', ["settings.toml", "strict", "yes"], id="text for truth"),
        pytest.param({}, "", 'quiet = "yes"\n', ["settings.toml", "quiet", "yes"], id="another text for truth"),
        pytest.param({"UPGRADECONVERTER_DEADLINE": "soon"}, "", None, ["environment", "deadline", "soon"], id="deadline"),
        pytest.param({}, "upgradeconverter.deadline=", None, ["kernel command line", "deadline"], id="deadline of nothing"),
        pytest.param({}, "", "deadline = nan\n", ["settings.toml", "deadline", "nan"], id="deadline that is no number"),
        pytest.param({}, "", "deadline = inf\n", ["settings.toml", "deadline", "inf"], id="deadline that never comes"),
        pytest.param({}, "", "deadline = -1\n", ["settings.toml", "deadline", "-1"], id="deadline in the past"),
        pytest.param({}, "", "deadline = true\n", ["settings.toml", "deadline", "True"], id="deadline that is a truth"),
        pytest.param({}, "", 'colour = "red"\n', ["settings.toml", "colour", "red"], id="unknown name"),
        pytest.param({}, "", "agents = 3\n", ["settings.toml", "agents", "3"], id="agents no table"),
        pytest.param({}, "", "target = " + "[" * 5000, ["settings.toml", "TOML"], id="too deep"),
        pytest.param({}, "", "target = " + "9" * 5000, ["settings.toml", "TOML"], id="too long a number"),
        pytest.param({}, "", 'persist = "/a\\u0000b"\n', ["settings.toml", "persist", "NUL"], id="no path"),
    ],
)
def test_bad_values(tmp_path: Path, environment: dict[str, str], kernel: str, text: str | None, words: list[str]) -> None:
    """A value that is not understood is refused by name, source, and what was found."""
    with pytest.raises(BadSettingError) as refused:
        settings(tmp_path, environment=environment, kernel=kernel, text=text)
    assert refused.value.exit_status == EXIT_USAGE
    assert [word for word in words if word not in refused.value.message] == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(None, None, id="missing"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b'target = "latest"\r\n', "latest", id="other line ends"),
        pytest.param('# größer\ntarget = "5.7.0"'.encode(), "5.7.0", id="text"),
    ],
)
def test_file_in_its_place(fs: FakeFilesystem, content: bytes | None, expected: str | None) -> None:
    """The file is looked for in /etc, and need not be there."""
    if content is not None:
        fs.create_file(DEFAULT_FILE, contents=content)
    found = load({}, {}, "")
    assert (found.target, found.origins.get("target")) == (expected, f"file {DEFAULT_FILE}" if expected else None)


@pytest.mark.parametrize("content", [b'target = "\xff"', b"\xef\xbb\xbftarget = 1", b"\0", b"target"])
def test_file_that_is_no_text(fs: FakeFilesystem, content: bytes) -> None:
    """A file with other bytes than the text of settings is refused by its path."""
    fs.create_file(DEFAULT_FILE, contents=content)
    with pytest.raises(BadSettingError, match=f"the file from file {DEFAULT_FILE}"):
        load({}, {}, "")


def test_file_that_may_not_be_read(fs: FakeFilesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there and cannot be read is refused, not passed over."""
    fs.create_file(DEFAULT_FILE, contents='target = "latest"')

    def refuse(*_: object, **__: object) -> NoReturn:
        raise PermissionError(13, "Permission denied", DEFAULT_FILE)

    monkeypatch.setattr("upgradeconverter.settings.open", refuse, raising=False)
    with pytest.raises(BadSettingError, match="Permission denied"):
        load({}, {}, "")


def test_file_named_that_is_not_there(tmp_path: Path) -> None:
    """A settings file that somebody named has to be there."""
    with pytest.raises(BadSettingError, match="a file that exists"):
        load({}, {"UPGRADECONVERTER_CONFIG": str(tmp_path / "none.toml")}, "")


def test_names_that_look_like_settings() -> None:
    """A misspelt name in the environment is told, and stops nothing."""
    assert load({}, {"UPGRADECONVERTER_TARGT": "latest"}, "").unknown == (
        "UPGRADECONVERTER_TARGT in the environment is no setting",
    )


def test_file_is_a_directory(tmp_path: Path) -> None:
    """A file that cannot be read is refused by its path."""
    with pytest.raises(BadSettingError, match=str(tmp_path)):
        load({}, {}, "", str(tmp_path))


def test_agents(tmp_path: Path) -> None:
    """Each agent has a user and a group."""
    text = "[agents]\nvolumemgr = { uid = 11, gid = 12 }\n[agents.verifier]\nuid = 0\ngid = 0\n"
    assert settings(tmp_path, text=text).agents == {"volumemgr": (11, 12), "verifier": (0, 0)}


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param("11", id="number"),
        pytest.param("{ uid = 11 }", id="no group"),
        pytest.param("{ uid = -1, gid = 0 }", id="negative"),
        pytest.param("{ uid = true, gid = 0 }", id="truth"),
        pytest.param('{ uid = "root", gid = 0 }', id="name"),
        pytest.param("{ uid = 1, gid = 1, mode = 7 }", id="too much"),
        pytest.param("{ uid = 4294967295, gid = 0 }", id="nobody's number"),
        pytest.param("{ uid = 0, gid = 99999999999 }", id="too large"),
    ],
)
def test_bad_agents(tmp_path: Path, ids: str) -> None:
    """An agent without exactly two numbers is refused by its name."""
    with pytest.raises(BadSettingError, match=r"agents\.verifier from file .*settings\.toml"):
        settings(tmp_path, text=f"[agents]\nverifier = {ids}\n")
