"""What a pack declares is shown as it is: each migration with its layouts, places and owner, and the way between two layouts."""

from __future__ import annotations

from typing import Any

import pytest

from migrations.eve import PACK
from tests.support.olddisk import checked
from upgradeconverter.errors import EXIT_DONE, EXIT_REFUSED, EXIT_USAGE
from upgradeconverter.packs.show import graph, path, table


def _show(*words: str) -> dict[str, Any]:
    status, document = checked("packs", "show", "eve", *words)
    assert status == EXIT_DONE
    found: dict[str, Any] = document["details"]
    return found


def test_each_migration() -> None:
    """All of them are there, each with what it writes and who owns that."""
    rows = {row["migration"]: row for row in _show()["migrations"]}
    assert set(rows) == {migration.id for migration in PACK.migrations}
    assert rows["eve-volumes"] | {"summary": ""} == {
        "migration": "eve-volumes",
        "phase": "post-vault",
        "first": "design",
        "last": "latest",
        "layouts": "since design",
        "reads": ["img", "runx/pods/prepared"],
        "writes": ["vault/volumes", "clear/volumes"],
        "owner": "volumemgr",
        "readers": "domainmgr",
        "reversible": True,
        "summary": "",
    }


@pytest.mark.parametrize(
    ("source", "target", "wanted", "unwanted"),
    [
        ("5.3.0", "12.5.0", {"eve-global-config", "eve-metadata", "eve-verified-typed"}, {"eve-verified", "eve-stale-topics"}),
        ("5.7.0", "6.0.0", {"eve-config-map", "eve-verified"}, {"eve-pairs", "eve-config-import"}),
        ("legacy", "design", {"eve-volumes"}, {"eve-design-names", "eve-pairs"}),
    ],
)
def test_way(source: str, target: str, wanted: set[str], unwanted: set[str]) -> None:
    """On the way from one release to another is what runs for the other one."""
    found = {row["migration"] for row in _show("--from", source, "--to", target)["path"]}
    assert wanted <= found
    assert not unwanted & found


def test_what_is_over() -> None:
    """What no release further on reads is on the way as that, with the reason."""
    rows = {row["migration"]: row for row in path(PACK, "legacy", "16.12.0")}
    assert "at each boot" in rows["eve-global-config"]["ended"]


def test_no_way_back() -> None:
    """There is no way to an older layout, and none to what is no layout."""
    for words, status in ((("--from", "6.0.0", "--to", "5.7.0"), EXIT_REFUSED), (("--from", "x"), EXIT_USAGE)):
        assert checked("packs", "show", "eve", *words)[0] == status
    assert checked("plan", "--from", "5.0")[0] == EXIT_USAGE


def test_graph() -> None:
    """The graph has an edge from each place that is read, and to each that is written to."""
    lines = graph(PACK).splitlines()
    assert lines[0] == "flowchart LR"
    assert any('["img"] --> ' in line and line.endswith('(["eve-volumes"])') for line in lines)
    assert any('(["eve-config-import"]) --> ' in line for line in lines)
    assert len(lines) == len(set(lines))
    assert len(table(PACK)) == len(PACK.migrations)
