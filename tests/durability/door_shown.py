"""Starts the program with guarded doors and says, as the last line of standard output, which changes it counted.

Arguments are those of the program. Run under strace by `test_door`.
"""

from __future__ import annotations

import json
import os
import sys

from tests.support.door import CHANGE, armed
from upgradeconverter.cli.main import main

if __name__ == "__main__":
    with armed() as door:
        status = main(sys.argv[1:])
    os.write(1, f"\n{json.dumps(door.calls[CHANGE])}".encode())
    sys.exit(status)
