"""Starts commands one after the other and says how long they took: a small process, started by `python -I -S`.

Reads a JSON object from standard input: `commands`, `output` and `errors` (files for what they say), `environment`. Answers
with `seconds` from the first start to the last end, `cpu`, `largest` (ru_maxrss of the largest process, bytes) and `status` of
the last that was started; one that fails is the last. A process begins as a copy of its starter, so `largest` is never below
what this small one has.
"""

import json
import os
import resource
import sys
import time


def main() -> None:
    """Do what standard input says."""
    asked = json.load(sys.stdin)
    mode = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    places = [(os.POSIX_SPAWN_OPEN, number, asked[name], mode, 0o600) for number, name in ((1, "output"), (2, "errors"))]
    status = 0
    start = time.perf_counter()
    for command in asked["commands"]:
        pid = os.posix_spawnp(command[0], command, asked["environment"], file_actions=places)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            break
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "largest": used.ru_maxrss << 10, "status": status}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
