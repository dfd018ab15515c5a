"""How legacy EVE names its volumes, as strict, anchored grammar.

VM volumes in `img` are `<digest>-<app uuid>[#<purge counter>].<format>`; containers in `runx/pods/prepared` the same without a
format (EVE 5.4 to 5.6), or only the application's UUID (EVE 5.0 to 5.3). Digest and UUID come in either case. EVE's own
converter does not anchor its patterns, so leftovers such as `.qcow2.tmp` pass for volumes there (known defect 14).
"""

from __future__ import annotations

import re

FORMATS = ("raw", "qcow", "qcow2", "vhd", "vmdk", "ova", "vhdx", "container", "fmtunknown", "iso")

_HEX = "[0-9A-Fa-f]"
_UUID = rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}|{_HEX}{{32}}"
# 0 to 4294967295: the purge counter is a uint32; a larger number is not one that wraps around, it is no counter.
_UINT32 = (
    r"[0-9]{1,9}|[1-3][0-9]{9}|4[01][0-9]{8}|42[0-8][0-9]{7}|429[0-3][0-9]{6}|4294[0-8][0-9]{5}"
    r"|42949[0-5][0-9]{4}|429496[0-6][0-9]{3}|4294967[01][0-9]{2}|42949672[0-8][0-9]|429496729[0-5]"
)
_OLD = rf"(?P<digest>{_HEX}+)-(?P<app>{_UUID})(?:#(?P<purge>{_UINT32}))?"

VM_PATTERN = rf"{_OLD}\.(?P<format>{'|'.join(FORMATS)})"
# A directory that is named by the application alone has no counter either.
CONTAINER_PATTERN = rf"(?:(?P<digest>{_HEX}+)-)?(?P<app>{_UUID})(?(digest)(?:#(?P<purge>{_UINT32}))?)"
VOLUME_PATTERN = rf"(?P<volume>{_UUID})#(?P<generation>[0-9]+)(?:\.(?P<format>{'|'.join(FORMATS)}))?"
DIGEST_PATTERN = rf"(?P<digest>{_HEX}{{64}})"

# A configuration has hundreds of thousands of them, and this is how all are spelled that EVE's controllers send.
_ONE_SPELLING = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch
NIL_UUID = "00000000-0000-0000-0000-000000000000"


def read_uuid(text: str) -> str | None:
    """Return a UUID in its one spelling (lower case, with dashes); None when the text is none or is the nil UUID."""
    if _ONE_SPELLING(text):
        return text if text != NIL_UUID else None
    if not re.fullmatch(_UUID, text):
        return None
    digits = text.replace("-", "").lower()
    uuid = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    return None if uuid == NIL_UUID else uuid
