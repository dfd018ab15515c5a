"""How exposed the units are, as systemd judges it without one that runs: `python -m tests.boot.security [FILE]`.

Says for each unit its score and what is left open; with a file the same is kept there, with date and version of systemd.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

INIT = Path(__file__).resolve().parents[2] / "init"
PHASES = ("pre-vault", "post-vault", "confirm")
COMMON = "upgradeconverter-.service.d/10-surroundings.conf"


def copy_units(folder: Path) -> None:
    """Copy units and what they have in common into `folder`, starting `/bin/true`: systemd wants a program that is installed."""
    for unit in (*(INIT / "systemd").glob("*.service"), *(INIT / "systemd").glob("*.target"), INIT / "systemd" / COMMON):
        place = folder / unit.relative_to(INIT / "systemd")
        place.parent.mkdir(exist_ok=True)
        text = unit.read_text(encoding="utf-8")
        place.write_text(re.sub(r"^ExecStart=\S+ -I -S \S+", "ExecStart=/bin/true", text, flags=re.MULTILINE), encoding="utf-8")


def judged(folder: Path, phase: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Let systemd judge a unit among those in `folder`."""
    unit = folder / f"upgradeconverter-{phase}.service"
    return subprocess.run(
        ["systemd-analyze", "security", "--offline=true", *words, str(unit)],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_UNIT_PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def evidence(folder: Path) -> dict[str, Any]:
    """Return score and open points of each unit."""
    found: dict[str, Any] = {}
    for phase in PHASES:
        score = re.search(r"exposure level for \S+: ([0-9.]+)", judged(folder, phase).stdout)
        rows = json.loads(judged(folder, phase, "--json=short").stdout)
        left = {row["name"]: row["exposure"] for row in rows if row["exposure"] not in (None, "0.0")}
        found[f"upgradeconverter-{phase}.service"] = {"exposure": float(score[1]) if score else None, "left": left}
    return found


def main() -> int:
    """Say it, and keep it where that is asked for."""
    with tempfile.TemporaryDirectory() as scratch:
        copy_units(Path(scratch))
        units = evidence(Path(scratch))
    systemd = subprocess.run(["systemd-analyze", "--version"], check=True, capture_output=True, text=True).stdout.split("\n")[0]
    told = {"date": datetime.now(UTC).date().isoformat(), "systemd": systemd, "units": units}
    text = json.dumps(told, indent=2) + "\n"
    sys.stdout.write(text)
    for file in sys.argv[1:]:
        Path(file).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
