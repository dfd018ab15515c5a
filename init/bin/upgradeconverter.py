#!python
"""Starts the program: the preflight at once, and all else only where that cannot decide.

Installed as `upgradeconverter`, in the place of what pip makes of an entry point: that imports `re`, and needs `site`. The units
start it by `python3 -I -S`, which is fastest.
"""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # where this file lies, which is no place for modules
searched = sys.path
if sys.flags.no_site:
    # Only what was installed together with this file, without a search through the standard library first.
    sys.path = [f"{__file__.rsplit('/', 2)[0]}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"]
try:
    from upgradeconverter import preflight

    preflight.leave_if_idle(sys.argv[1:])
except ModuleNotFoundError:
    pass  # installed in another way, which `site` knows
if sys.flags.no_site:
    sys.path = searched
    import site

    site.main()

from upgradeconverter.__main__ import go_on  # noqa: E402 - not needed until here

go_on()
