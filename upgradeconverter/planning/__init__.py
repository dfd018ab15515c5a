"""From facts to a plan. Only `scan` and `survey` look at a disk; everything else is pure."""
