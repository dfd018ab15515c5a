"""Fuzzes the readers with atheris, guided by what they reach: `python -m tests.hostile.fuzz --seconds 60 [--seed 1] [NAME ...]`.

Each reader has a process of its own; the first that breaks ends the run, and what broke it is kept where libFuzzer says.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path


def _fuzz(name: str, corpus: str, seconds: int, seed: int) -> None:
    """Fuzz one reader; does not return."""
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with atheris.instrument_imports(include=["upgradeconverter", "migrations"]):
        from tests.hostile.parsers import TARGETS

    parser, seeds = TARGETS[name]
    for number, content in enumerate(seeds):
        (Path(corpus) / f"seed{number}").write_bytes(content)
    limits = [f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=16384", "-timeout=10", "-rss_limit_mb=1024"]
    atheris.Setup([sys.argv[0], corpus, *limits, "-print_final_stats=1"], parser)
    atheris.Fuzz()


def main() -> int:
    """Fuzz the named readers one after the other, or all of them."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("names", nargs="*")
    words.add_argument("--seconds", type=int, default=60)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--corpus", default="")
    given = words.parse_args()
    if given.corpus:
        _fuzz(given.names[0], given.corpus, given.seconds, given.seed)
    names = given.names or ["checkpoint", "latch", "journal", "stamp", "settings"]
    for name in names:
        sys.stdout.write(f"{name}: {given.seconds} seconds, seed {given.seed}\n")
        sys.stdout.flush()
        with tempfile.TemporaryDirectory() as corpus:
            again = (sys.executable, "-m", "tests.hostile.fuzz", name, "--corpus", corpus)
            ended = subprocess.run((*again, "--seconds", str(given.seconds), "--seed", str(given.seed)), check=False)
        if ended.returncode:
            return ended.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
