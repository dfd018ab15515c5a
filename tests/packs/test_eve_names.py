import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrations.eve import PACK
from migrations.eve.layouts import CASE, CLEAR_VOLUMES, IMAGES, PREPARED, VAULT_VOLUMES, VERIFIED, VERIFIED_BY_TYPE
from migrations.eve.names import FORMATS, read_uuid
from tests.packs.eve_words import APP, NIL, SHA1, V1
from upgradeconverter.packs.api import Kind, Zone
from upgradeconverter.packs.check import check

OLD = f"{SHA1}-{APP}"


def test_pack_is_sound() -> None:
    """The static check of packs finds nothing wrong."""
    assert check(PACK) == ()


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_a_vm_volume(form: str) -> None:
    """Each format that EVE knows is a legal extension, with and without a purge counter."""
    assert re.fullmatch(IMAGES.pattern or "", f"{OLD}.{form}")
    assert re.fullmatch(IMAGES.pattern or "", f"{OLD}#3.{form}")


@pytest.mark.parametrize(
    "name",
    [
        f"{OLD}.qcow2",
        f"{SHA1.upper()}-{APP.upper()}.raw",
        f"ab12-{APP}#0.raw",
        f"{SHA1}-{APP.replace('-', '')}#4294967295.vhdx",
    ],
)
def test_vm_names(name: str) -> None:
    """Digest and UUID come in either case, the UUID with or without dashes, the counter up to 32 bits."""
    assert re.fullmatch(IMAGES.pattern or "", name)


@pytest.mark.parametrize(
    "name",
    [
        f"{OLD}.qcow2.tmp",
        f"{OLD}.qcow2.bak",
        f"{OLD}#2.qcow2.tmp",
        f"{OLD}#2.qcow2.bak",
        f"{OLD}.tmp",
        f"{OLD}.QCOW2",
        f"{OLD}.exe",
        f"{OLD}.",
        OLD,
        f".{OLD}.qcow2",
        f"{OLD}#.qcow2",
        f"{OLD}#-1.qcow2",
        f"{OLD}#4294967296.qcow2",
        f"{OLD}#99999999999.qcow2",
        f"{OLD}\n.qcow2",
        f"{OLD}.qcow2\n",
        f"{SHA1}-{APP[:-1]}.qcow2",
        f"{SHA1}-{{{APP}}}.qcow2",
        f"xyz-{APP}.qcow2",
        f"-{APP}.qcow2",
        f"{OLD}#٣.qcow2",
    ],
)
def test_strangers_among_vm_volumes(name: str) -> None:
    """Leftovers and near misses are no volumes (defect 14)."""
    assert re.fullmatch(IMAGES.pattern or "", name) is None


@pytest.mark.parametrize("name", [f"{OLD}.old", f"{OLD}#3.foo", f"{APP}#2", f"{APP}.old", f"{OLD}.container", f"{OLD}#"])
def test_strangers_among_containers(name: str) -> None:
    """A prepared directory's name ends with the application or the counter; the oldest ones have only the application."""
    assert re.fullmatch(PREPARED.pattern or "", name) is None


def test_slots_ask_for_kinds() -> None:
    """A directory in `img` or a plain file in `prepared` is no volume (defect 15)."""
    assert IMAGES.kind is Kind.FILE
    assert PREPARED.kind is Kind.DIRECTORY
    assert all(slot.kind is Kind.DIRECTORY and slot.children for slot in VERIFIED_BY_TYPE)


@pytest.mark.parametrize("slot", [VAULT_VOLUMES, CLEAR_VOLUMES])
def test_volume_names_of_all_layouts(slot: object) -> None:
    """The slots of volumes know both kinds of names, and no leftovers."""
    pattern = VAULT_VOLUMES.pattern or ""
    assert slot in PACK.layouts["design"].slots
    assert re.fullmatch(pattern, f"{V1}#0")
    assert re.fullmatch(pattern, f"{V1}#12.container")
    assert not re.fullmatch(pattern, f"{V1}#12.raw.tmp")
    assert not re.fullmatch(pattern, V1)


def test_layouts_grow() -> None:
    """5.7.0 has encrypted volumes only; every directory has one owner, and all but the store is closed to others."""
    assert [slot for slot in PACK.layouts["5.7.0"].slots if slot.zone not in (Zone.PLAIN, Zone.UNSEALED)] == [VAULT_VOLUMES]
    assert VERIFIED.entry_mode == 0o400
    for label in ("design", "5.7.1"):
        slots = [slot for slot in PACK.layouts[label].slots if slot is not CASE]
        assert all(slot.mode == 0o700 and slot.owner for slot in slots)
        assert all(slot.directory.startswith("vault/") == (slot.zone is Zone.VAULT) for slot in slots)


@given(st.uuids())
def test_uuid_has_one_spelling(uuid: object) -> None:
    """Case and dashes of a UUID do not matter."""
    text = str(uuid)
    for spelling in (text, text.upper(), text.replace("-", "")):
        assert read_uuid(spelling) == (text if text != NIL else None)


@pytest.mark.parametrize("text", ["", NIL, NIL.replace("-", ""), APP[:-1], f"{{{APP}}}", f"{APP} ", "g" * 32])
def test_unusable_uuids(text: str) -> None:
    """What is no UUID, and the nil UUID, name nothing."""
    assert read_uuid(text) is None
