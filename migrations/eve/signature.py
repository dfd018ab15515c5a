"""Whether a controller signed the saved configuration, as EVE's own agents find out before they use it. Pure.

Since 8.9.0 (and in 8.5.2 and 8.5.4) a configuration lies in an AuthContainer: hash of the controller's signing certificate, and a
signature over the SHA-256 of the payload. The hash is over the text of the PEM file, not over what that encodes. Up to 16.11
the certificate lies in `certs/server-signing-cert.pem`, verified when it was fetched; since then (and since 14.5.4 and 16.0.1 in
their branches) all of the controller's certificates lie in `checkpoint/controllercerts`, and their chain to the roots in
the configuration partition is verified whenever they are loaded, since a disk may have been changed while it was elsewhere.

Sources: lf-edge/eve `pkg/pillar/controllerconn/authen.go`, before that `pkg/pillar/zedcloud/authen.go`; lf-edge/eve-api
`auth/auth.proto` and `certs/certs.proto`. What a chain must be like is said by Go's `crypto/x509`, which asks for server
authentication where a certificate says what it is for.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.x509 import Certificate

    from . import eve_pb2

_SHORT, _LONG = 1, 2
_HASH_SIZES = {_SHORT: 16, _LONG: 32}


class Finding(StrEnum):
    """What became of the attempt to verify; everything but `VALID` is one cause."""

    VALID = "valid"
    UNSIGNED = "not signed"
    NO_CERTIFICATE = "no certificate to verify it with"
    UNKNOWN_ALGORITHM = "unknown form of the certificate's hash"
    HASH_LENGTH = "hash of the certificate has the wrong length"
    OTHER_CERTIFICATE = "signed with another certificate"
    UNREADABLE_CERTIFICATE = "certificate cannot be read"
    UNSUPPORTED_KEY = "key of a kind that EVE does not take"
    SIGNATURE_LENGTH = "signature has the wrong length"
    WRONG_SIGNATURE = "signature is wrong"
    UNREADABLE_CERTIFICATES = "list of certificates cannot be read"
    UNKNOWN_TYPE = "list holds a certificate of an unknown type"
    NOT_ONE_SIGNER = "list does not hold just one signing certificate"
    NO_EXCHANGE = "list holds no certificate for the key exchange"
    NO_ROOTS = "no root certificates"
    UNTRUSTED = "no chain leads to a root"
    NOT_YET_VALID = "certificate not valid yet"
    EXPIRED = "certificate not valid any more"


class Verdict(Struct, frozen=True):
    """What was found, and for people what it was found with."""

    finding: Finding
    detail: str = ""


class Material(Struct, frozen=True, kw_only=True):
    """What there is to verify with.

    Attributes:
        signer: text of the one signing certificate that older releases keep, empty when there is none.
        lists: serialized lists of certificates of newer releases by path, the one that counts first.
        roots: text of the root certificates.
        at: when the chain has to be valid; None where nobody knows what time it was.
    """

    signer: bytes = b""
    lists: tuple[tuple[str, bytes], ...] = ()
    roots: bytes = b""
    at: datetime | None = None


class _Type(IntEnum):
    SIGNING = 1
    INTERMEDIATE = 2
    EXCHANGE = 3


class _RefusedError(Exception):
    def __init__(self, finding: Finding, detail: str = "") -> None:
        super().__init__(finding.value)
        self.verdict = Verdict(finding, detail)


def verify(container: eve_pb2.AuthContainer | None, material: Material) -> Verdict:
    """Return whether a configuration was signed by the controller; None stands for one without a container."""
    if container is None:
        return Verdict(Finding.UNSIGNED)
    verdicts = []
    for path, content in material.lists:
        verdicts.append(_verify_with_list(container, content, material, path))
    if material.signer:
        verdicts.append(_verify_with(container, material.signer, "the signing certificate"))
    valid = (verdict for verdict in verdicts if verdict.finding is Finding.VALID)
    # A list that does not know the signer says less than one that does.
    telling = (verdict for verdict in verdicts if verdict.finding is not Finding.OTHER_CERTIFICATE)
    best = (*valid, *telling, *verdicts)
    return best[0] if best else Verdict(Finding.NO_CERTIFICATE)


def _verify_with_list(container: eve_pb2.AuthContainer, content: bytes, material: Material, path: str) -> Verdict:
    try:
        signer = _signer_in(content, material)
    except _RefusedError as refused:
        return Verdict(refused.verdict.finding, f"{path}: {refused.verdict.detail}".rstrip(": "))
    return _verify_with(container, signer, path)


def _verify_with(container: eve_pb2.AuthContainer, signer: bytes, path: str) -> Verdict:
    try:
        _check(container, signer)
    except _RefusedError as refused:
        return Verdict(refused.verdict.finding, f"{path}: {refused.verdict.detail}".rstrip(": "))
    return Verdict(Finding.VALID, path)


def _check(container: eve_pb2.AuthContainer, signer: bytes) -> None:
    known = container.senderCertHash
    size = _HASH_SIZES.get(container.algo)
    if size is None:
        raise _RefusedError(Finding.UNKNOWN_ALGORITHM, f"expected 1 or 2, found {container.algo}")
    if len(known) != size:
        raise _RefusedError(Finding.HASH_LENGTH, f"expected {size} bytes, found {len(known)}")
    if known != hashlib.sha256(signer).digest()[:size]:
        raise _RefusedError(Finding.OTHER_CERTIFICATE, f"expected one whose SHA-256 begins with {known[:4].hex()}")
    _check_signature(_certificate(signer), container.signatureHash, container.protectedPayload.payload)


def _certificate(text: bytes) -> Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(text)
    except ValueError as error:
        raise _RefusedError(Finding.UNREADABLE_CERTIFICATE, str(error)) from error


def _check_signature(certificate: Certificate, signature: bytes, payload: bytes) -> None:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    try:
        key = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            _check_rsa(key, signature, payload)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            _check_ec(key, signature, payload)
        else:
            raise _RefusedError(Finding.UNSUPPORTED_KEY, type(key).__name__)
    except InvalidSignature:
        raise _RefusedError(Finding.WRONG_SIGNATURE) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _RefusedError(Finding.UNSUPPORTED_KEY, str(error)) from error


def _check_rsa(key: RSAPublicKey, signature: bytes, payload: bytes) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    _check_length(signature, (key.key_size + 7) // 8)
    key.verify(signature, payload, padding.PKCS1v15(), hashes.SHA256())


def _check_ec(key: EllipticCurvePublicKey, signature: bytes, payload: bytes) -> None:
    """Verify r and s, one behind the other; the hash is SHA-256 whatever the curve."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    half = (key.curve.key_size + 7) // 8
    if half % 8:
        # EVE's agents take P-256 and P-384 only.
        raise _RefusedError(Finding.UNSUPPORTED_KEY, key.curve.name)
    _check_length(signature, 2 * half)
    r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    key.verify(utils.encode_dss_signature(r, s), payload, ec.ECDSA(hashes.SHA256()))


def _check_length(signature: bytes, size: int) -> None:
    if len(signature) != size:
        raise _RefusedError(Finding.SIGNATURE_LENGTH, f"expected {size} bytes, found {len(signature)}")


# --- lists of certificates -----------------------------------------------------------------------------------------------


def _signer_in(content: bytes, material: Material) -> bytes:
    """Return the text of the signing certificate in a list that is as EVE wants it, every leaf of which leads to a root."""
    from google.protobuf.message import DecodeError

    from . import eve_pb2 as pb

    try:
        found = pb.ZControllerCert.FromString(content).certs
    except (DecodeError, ValueError) as error:
        raise _RefusedError(Finding.UNREADABLE_CERTIFICATES, str(error)) from error
    unknown = [each.type for each in found if each.type not in tuple(_Type)]
    if unknown:
        raise _RefusedError(Finding.UNKNOWN_TYPE, f"type {unknown[0]}")
    signers = [each.cert for each in found if each.type == _Type.SIGNING]
    if len(signers) != 1:
        raise _RefusedError(Finding.NOT_ONE_SIGNER, f"found {len(signers)}")
    exchanges = [each.cert for each in found if each.type == _Type.EXCHANGE]
    if not exchanges:
        raise _RefusedError(Finding.NO_EXCHANGE)
    between = [_certificate(each.cert) for each in found if each.type == _Type.INTERMEDIATE]
    roots = _roots(material.roots)
    for text in (*signers, *exchanges):
        _check_chain(_certificate(text), between, roots, material.at)
    return signers[0]


def _roots(text: bytes) -> list[Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(text)
    except ValueError as error:
        raise _RefusedError(Finding.NO_ROOTS, str(error)) from error


def _check_chain(leaf: Certificate, between: list[Certificate], roots: list[Certificate], at: datetime | None) -> None:
    chains = [chain for chain in _chains((leaf,), between, roots) if all(_serves(each) for each in chain)]
    if not chains:
        raise _RefusedError(Finding.UNTRUSTED, leaf.subject.rfc4514_string())
    if at is None or any(all(_is_valid(each, at) for each in chain) for chain in chains):
        return
    bad = next(each for each in chains[0] if not _is_valid(each, at))
    finding = Finding.NOT_YET_VALID if at < bad.not_valid_before_utc else Finding.EXPIRED
    span = f"{bad.not_valid_before_utc:%Y-%m-%d} to {bad.not_valid_after_utc:%Y-%m-%d}"
    raise _RefusedError(finding, f"{bad.subject.rfc4514_string()}: expected {at:%Y-%m-%d} to be in {span}")


def _chains(
    chain: tuple[Certificate, ...], between: list[Certificate], roots: list[Certificate]
) -> Iterable[tuple[Certificate, ...]]:
    """Yield the ways from a certificate to a root, over authorities only; none is in a chain twice."""
    last = chain[-1]
    if last in roots:
        yield chain
        return
    for issuer in roots:
        if _issued(issuer, last):
            yield (*chain, issuer)
    for issuer in between:
        if issuer not in chain and _issued(issuer, last):
            yield from _chains((*chain, issuer), between, roots)


def _issued(issuer: Certificate, child: Certificate) -> bool:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        is_authority = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        child.verify_directly_issued_by(issuer)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        return False
    return is_authority


def _serves(certificate: Certificate) -> bool:
    """Return whether a certificate may be used by a server: it says so, or it does not say what it is for."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False
    return ExtendedKeyUsageOID.SERVER_AUTH in uses or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in uses


def _is_valid(certificate: Certificate, at: datetime) -> bool:
    return certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc
