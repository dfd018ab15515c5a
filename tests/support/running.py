"""Runs the command line in this process, on a directory, as a tool would: arguments in, status and document out."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

from upgradeconverter.cli.main import main


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Return exit status and the JSON document of one command line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([*arguments, "--output", "json"])
    return status, json.loads(out.getvalue())
