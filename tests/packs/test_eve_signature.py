"""A signature is believed only for what it is over, with the right key, from a certificate that leads to a root."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec.structs import replace

from migrations.eve import eve_pb2 as pb
from migrations.eve.signature import Finding, Material, verify

if TYPE_CHECKING:
    from collections.abc import Callable

PAYLOAD = b"a configuration"
THEN = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
YEAR = dt.timedelta(days=365)
SIGNING, BETWEEN, EXCHANGE = 1, 2, 3


@dataclass(frozen=True)
class Holder:
    """A certificate and its key."""

    key: Any
    certificate: x509.Certificate

    @property
    def text(self) -> bytes:
        """The certificate as its file has it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@cache
def key_of(kind: str) -> Any:
    """Make a key once."""
    curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-224": ec.SECP224R1(), "P-521": ec.SECP521R1()}
    if kind == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ed25519.Ed25519PrivateKey.generate() if kind == "Ed25519" else ec.generate_private_key(curves[kind])


def certify(
    name: str,
    *,
    kind: str = "P-256",
    issuer: Holder | None = None,
    authority: bool = False,
    uses: tuple[x509.ObjectIdentifier, ...] = (),
    years: tuple[int, int] = (-1, 1),
) -> Holder:
    """Make a certificate that is valid from so many years after `THEN` to so many."""
    key = key_of(kind)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(THEN + years[0] * YEAR)
        .not_valid_after(THEN + years[1] * YEAR)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    signer = issuer.key if issuer else key
    return Holder(key, builder.sign(signer, None if kind == "Ed25519" and issuer is None else hashes.SHA256()))


def signed(holder: Holder, *, size: int = 32, payload: bytes = PAYLOAD) -> pb.AuthContainer:
    """Return what the controller sends."""
    if isinstance(holder.key, rsa.RSAPrivateKey):
        signature = holder.key.sign(payload, padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(holder.key, ec.EllipticCurvePrivateKey):
        half = (holder.key.curve.key_size + 7) // 8
        r, s = utils.decode_dss_signature(holder.key.sign(payload, ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(half, "big") + s.to_bytes(half, "big")
    else:
        signature = holder.key.sign(payload)
    return pb.AuthContainer(
        protectedPayload=pb.AuthBody(payload=payload),
        algo=1 if size == 16 else 2,
        senderCertHash=hashlib.sha256(holder.text).digest()[:size],
        signatureHash=signature,
    )


# --- one certificate -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("kind", ["RSA", "P-256", "P-384"])
def test_valid(kind: str, size: int) -> None:
    """Each kind of key, each form of the certificate's hash."""
    holder = certify("controller", kind=kind)
    assert verify(signed(holder, size=size), Material(signer=holder.text)).finding is Finding.VALID


def _changed(**members: Any) -> Callable[[pb.AuthContainer], None]:
    def change(container: pb.AuthContainer) -> None:
        for name, value in members.items():
            setattr(container, name, value)

    return change


def _tamper(container: pb.AuthContainer) -> None:
    container.protectedPayload.payload += b"!"


def _cut(container: pb.AuthContainer) -> None:
    container.signatureHash = container.signatureHash[:-1]


def _swap(container: pb.AuthContainer) -> None:
    half = len(container.signatureHash) // 2
    container.signatureHash = container.signatureHash[half:] + container.signatureHash[:half]


@pytest.mark.parametrize("kind", ["RSA", "P-256", "P-384"])
@pytest.mark.parametrize(
    ("change", "finding"),
    [
        pytest.param(_changed(algo=0), Finding.UNKNOWN_ALGORITHM, id="no algorithm"),
        pytest.param(_changed(algo=3), Finding.UNKNOWN_ALGORITHM, id="algorithm 3"),
        pytest.param(_changed(algo=1), Finding.HASH_LENGTH, id="long for short"),
        pytest.param(_changed(senderCertHash=b""), Finding.HASH_LENGTH, id="no hash"),
        pytest.param(_changed(senderCertHash=bytes(31)), Finding.HASH_LENGTH, id="31 bytes"),
        pytest.param(_changed(senderCertHash=bytes(32)), Finding.OTHER_CERTIFICATE, id="other certificate"),
        pytest.param(_changed(signatureHash=b""), Finding.SIGNATURE_LENGTH, id="no signature"),
        pytest.param(_cut, Finding.SIGNATURE_LENGTH, id="short signature"),
        pytest.param(_tamper, Finding.WRONG_SIGNATURE, id="other payload"),
        pytest.param(_swap, Finding.WRONG_SIGNATURE, id="s before r"),
    ],
)
def test_each_cause(kind: str, change: Callable[[pb.AuthContainer], None], finding: Finding) -> None:
    """Whatever is wrong has a name of its own."""
    holder = certify("controller", kind=kind)
    container = signed(holder)
    change(container)
    assert verify(container, Material(signer=holder.text)).finding is finding


@pytest.mark.parametrize("number", [0, -1])
def test_number_out_of_range(number: int) -> None:
    """An r or s that is none is a wrong signature, not a failure."""
    holder = certify("controller")
    container = signed(holder)
    container.signatureHash = (b"\xff" if number else b"\0") * 64
    assert verify(container, Material(signer=holder.text)).finding is Finding.WRONG_SIGNATURE


@pytest.mark.parametrize("kind", ["P-224", "P-521", "Ed25519"])
def test_unsupported_key(kind: str) -> None:
    """EVE's agents take RSA, P-256 and P-384."""
    holder = certify("controller", kind=kind)
    assert verify(signed(holder), Material(signer=holder.text)).finding is Finding.UNSUPPORTED_KEY


def test_hash_is_over_the_text() -> None:
    """The same certificate in a file that is written differently is another one."""
    holder = certify("controller")
    assert verify(signed(holder), Material(signer=holder.text + b"\n")).finding is Finding.OTHER_CERTIFICATE


def test_nothing_to_verify() -> None:
    """No container, no certificate, a file that holds none."""
    holder = certify("controller")
    garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    container = signed(holder)
    container.senderCertHash = hashlib.sha256(garbage).digest()
    assert verify(None, Material(signer=holder.text)).finding is Finding.UNSIGNED
    assert verify(signed(holder), Material()).finding is Finding.NO_CERTIFICATE
    assert verify(container, Material(signer=garbage)).finding is Finding.UNREADABLE_CERTIFICATE


# --- lists of certificates -----------------------------------------------------------------------------------------------

ROOT = certify("root", kind="P-384", authority=True, years=(-5, 5))
MIDDLE = certify("middle", issuer=ROOT, authority=True, years=(-3, 3))
SIGNER = certify("signer", issuer=MIDDLE, uses=(ExtendedKeyUsageOID.SERVER_AUTH,))
PARTNER = certify("partner", issuer=MIDDLE)


def listed(*members: tuple[int, Holder]) -> bytes:
    """Return a list as a device keeps it."""
    found = pb.ZControllerCert(certs=[pb.ZCert(type=kind, cert=holder.text) for kind, holder in members])
    return found.SerializeToString()


GOOD = ((SIGNING, SIGNER), (BETWEEN, MIDDLE), (EXCHANGE, PARTNER))


def material(*members: tuple[int, Holder], at: dt.datetime | None = THEN) -> Material:
    """Return what there is to verify with."""
    return Material(lists=(("controllercerts", listed(*(members or GOOD))),), roots=ROOT.text, at=at)


def test_chain() -> None:
    """A signer is believed whose certificate leads to a root."""
    verdict = verify(signed(SIGNER), material())
    assert (verdict.finding, verdict.detail) == (Finding.VALID, "controllercerts")


STRANGER = certify("root", kind="RSA", authority=True)
FALSE_MIDDLE = certify("no authority", issuer=ROOT, authority=False)
DIRECT = certify("direct", issuer=ROOT)
UNDER_FALSE = certify("under", issuer=FALSE_MIDDLE)
MAIL = certify("mail", issuer=MIDDLE, uses=(ExtendedKeyUsageOID.EMAIL_PROTECTION,))
ANY = certify("any", issuer=MIDDLE, uses=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,))
OLD = certify("old", issuer=MIDDLE, years=(-2, -1))
YOUNG = certify("young", issuer=MIDDLE, years=(1, 2))


@pytest.mark.parametrize(
    ("members", "finding"),
    [
        pytest.param(((SIGNING, SIGNER), (EXCHANGE, PARTNER)), Finding.UNTRUSTED, id="nothing between"),
        pytest.param(((BETWEEN, MIDDLE), (EXCHANGE, PARTNER)), Finding.NOT_ONE_SIGNER, id="no signer"),
        pytest.param((*GOOD, (SIGNING, DIRECT)), Finding.NOT_ONE_SIGNER, id="two signers"),
        pytest.param(GOOD[:2], Finding.NO_EXCHANGE, id="no exchange"),
        pytest.param((*GOOD, (0, MIDDLE)), Finding.UNKNOWN_TYPE, id="type 0"),
        pytest.param((*GOOD, (10, MIDDLE)), Finding.UNKNOWN_TYPE, id="of a device"),
        pytest.param(((SIGNING, UNDER_FALSE), (BETWEEN, FALSE_MIDDLE), (EXCHANGE, DIRECT)), Finding.UNTRUSTED, id="no authority"),
        pytest.param(((SIGNING, MAIL), *GOOD[1:]), Finding.UNTRUSTED, id="for mail"),
        pytest.param(((SIGNING, ANY), *GOOD[1:]), Finding.VALID, id="for anything"),
        pytest.param(((SIGNING, DIRECT), (EXCHANGE, DIRECT)), Finding.VALID, id="directly"),
        pytest.param(((SIGNING, OLD), *GOOD[1:]), Finding.EXPIRED, id="expired"),
        pytest.param(((SIGNING, YOUNG), *GOOD[1:]), Finding.NOT_YET_VALID, id="not yet"),
        pytest.param((*GOOD[:2], (EXCHANGE, OLD)), Finding.EXPIRED, id="exchange expired"),
    ],
)
def test_lists(members: tuple[tuple[int, Holder], ...], finding: Finding) -> None:
    """What a list must hold, and what each certificate in it must be."""
    signer = next((holder for kind, holder in members if kind == SIGNING), SIGNER)
    assert verify(signed(signer), material(*members)).finding is finding


@pytest.mark.parametrize("holder", [OLD, YOUNG])
def test_nobody_knows_the_time(holder: Holder) -> None:
    """Where nobody knows what time it was no certificate is too old or too young."""
    assert verify(signed(holder), material((SIGNING, holder), *GOOD[1:], at=None)).finding is Finding.VALID


def test_roots() -> None:
    """Another root of the same name does not do, and without roots nothing does."""
    assert verify(signed(SIGNER), replace(material(), roots=STRANGER.text)).finding is Finding.UNTRUSTED
    assert verify(signed(SIGNER), replace(material(), roots=b"")).finding is Finding.NO_ROOTS
    assert verify(signed(SIGNER), replace(material(), roots=STRANGER.text + ROOT.text)).finding is Finding.VALID


def test_second_list() -> None:
    """When the signer is not in one list, or that cannot be read, the other one counts, and what is told is of that."""
    other = listed((SIGNING, DIRECT), (EXCHANGE, DIRECT))
    good = ("backup", listed(*GOOD))
    for first in (other, b"\xff", b""):
        verdict = verify(signed(SIGNER), Material(lists=(("first", first), good), roots=ROOT.text, at=THEN))
        assert (verdict.finding, verdict.detail) == (Finding.VALID, "backup")
    container = signed(SIGNER)
    _tamper(container)
    found = verify(container, Material(lists=(("first", other), good), roots=ROOT.text, at=THEN))
    assert found.finding is Finding.WRONG_SIGNATURE
    assert found.detail.startswith("backup")


def test_list_that_cannot_be_read() -> None:
    """What is no list, and what is no certificate in one."""
    lists = (("first", b"\xff"),)
    assert verify(signed(SIGNER), Material(lists=lists)).finding is Finding.UNREADABLE_CERTIFICATES
    broken = pb.ZControllerCert(certs=[pb.ZCert(type=1, cert=b"x"), pb.ZCert(type=3, cert=b"x")]).SerializeToString()
    found = verify(signed(SIGNER), Material(lists=(("first", broken),), roots=ROOT.text))
    assert found.finding is Finding.UNREADABLE_CERTIFICATE
