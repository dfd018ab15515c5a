from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FmtUnknown: _ClassVar[Format]
    RAW: _ClassVar[Format]
    QCOW: _ClassVar[Format]
    QCOW2: _ClassVar[Format]
    VHD: _ClassVar[Format]
    VMDK: _ClassVar[Format]
    OVA: _ClassVar[Format]
    VHDX: _ClassVar[Format]
    CONTAINER: _ClassVar[Format]
    ISO: _ClassVar[Format]
    PVC: _ClassVar[Format]
FmtUnknown: Format
RAW: Format
QCOW: Format
QCOW2: Format
VHD: Format
VMDK: Format
OVA: Format
VHDX: Format
CONTAINER: Format
ISO: Format
PVC: Format

class UUIDandVersion(_message.Message):
    __slots__ = ("uuid", "version")
    UUID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    version: str
    def __init__(self, uuid: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class InstanceOpsCmd(_message.Message):
    __slots__ = ("counter",)
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    counter: int
    def __init__(self, counter: _Optional[int] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("uuidandversion", "name", "sha256", "iformat")
    UUIDANDVERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    IFORMAT_FIELD_NUMBER: _ClassVar[int]
    uuidandversion: UUIDandVersion
    name: str
    sha256: str
    iformat: Format
    def __init__(self, uuidandversion: _Optional[_Union[UUIDandVersion, _Mapping]] = ..., name: _Optional[str] = ..., sha256: _Optional[str] = ..., iformat: _Optional[_Union[Format, str]] = ...) -> None: ...

class Drive(_message.Message):
    __slots__ = ("image", "readonly")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    READONLY_FIELD_NUMBER: _ClassVar[int]
    image: Image
    readonly: bool
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., readonly: _Optional[bool] = ...) -> None: ...

class VolumeRef(_message.Message):
    __slots__ = ("uuid", "generationCount")
    UUID_FIELD_NUMBER: _ClassVar[int]
    GENERATIONCOUNT_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    generationCount: int
    def __init__(self, uuid: _Optional[str] = ..., generationCount: _Optional[int] = ...) -> None: ...

class AppInstanceConfig(_message.Message):
    __slots__ = ("uuidandversion", "displayname", "drives", "purge", "volumeRefList")
    UUIDANDVERSION_FIELD_NUMBER: _ClassVar[int]
    DISPLAYNAME_FIELD_NUMBER: _ClassVar[int]
    DRIVES_FIELD_NUMBER: _ClassVar[int]
    PURGE_FIELD_NUMBER: _ClassVar[int]
    VOLUMEREFLIST_FIELD_NUMBER: _ClassVar[int]
    uuidandversion: UUIDandVersion
    displayname: str
    drives: _containers.RepeatedCompositeFieldContainer[Drive]
    purge: InstanceOpsCmd
    volumeRefList: _containers.RepeatedCompositeFieldContainer[VolumeRef]
    def __init__(self, uuidandversion: _Optional[_Union[UUIDandVersion, _Mapping]] = ..., displayname: _Optional[str] = ..., drives: _Optional[_Iterable[_Union[Drive, _Mapping]]] = ..., purge: _Optional[_Union[InstanceOpsCmd, _Mapping]] = ..., volumeRefList: _Optional[_Iterable[_Union[VolumeRef, _Mapping]]] = ...) -> None: ...

class ContentTree(_message.Message):
    __slots__ = ("uuid", "iformat", "sha256")
    UUID_FIELD_NUMBER: _ClassVar[int]
    IFORMAT_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    iformat: Format
    sha256: str
    def __init__(self, uuid: _Optional[str] = ..., iformat: _Optional[_Union[Format, str]] = ..., sha256: _Optional[str] = ...) -> None: ...

class VolumeContentOrigin(_message.Message):
    __slots__ = ("downloadContentTreeID",)
    DOWNLOADCONTENTTREEID_FIELD_NUMBER: _ClassVar[int]
    downloadContentTreeID: str
    def __init__(self, downloadContentTreeID: _Optional[str] = ...) -> None: ...

class Volume(_message.Message):
    __slots__ = ("uuid", "origin", "generationCount", "clear_text")
    UUID_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    GENERATIONCOUNT_FIELD_NUMBER: _ClassVar[int]
    CLEAR_TEXT_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    origin: VolumeContentOrigin
    generationCount: int
    clear_text: bool
    def __init__(self, uuid: _Optional[str] = ..., origin: _Optional[_Union[VolumeContentOrigin, _Mapping]] = ..., generationCount: _Optional[int] = ..., clear_text: _Optional[bool] = ...) -> None: ...

class EdgeDevConfig(_message.Message):
    __slots__ = ("id", "apps", "contentInfo", "volumes")
    ID_FIELD_NUMBER: _ClassVar[int]
    APPS_FIELD_NUMBER: _ClassVar[int]
    CONTENTINFO_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    id: UUIDandVersion
    apps: _containers.RepeatedCompositeFieldContainer[AppInstanceConfig]
    contentInfo: _containers.RepeatedCompositeFieldContainer[ContentTree]
    volumes: _containers.RepeatedCompositeFieldContainer[Volume]
    def __init__(self, id: _Optional[_Union[UUIDandVersion, _Mapping]] = ..., apps: _Optional[_Iterable[_Union[AppInstanceConfig, _Mapping]]] = ..., contentInfo: _Optional[_Iterable[_Union[ContentTree, _Mapping]]] = ..., volumes: _Optional[_Iterable[_Union[Volume, _Mapping]]] = ...) -> None: ...

class ConfigResponse(_message.Message):
    __slots__ = ("config", "configHash")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CONFIGHASH_FIELD_NUMBER: _ClassVar[int]
    config: EdgeDevConfig
    configHash: str
    def __init__(self, config: _Optional[_Union[EdgeDevConfig, _Mapping]] = ..., configHash: _Optional[str] = ...) -> None: ...

class AuthBody(_message.Message):
    __slots__ = ("payload",)
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    def __init__(self, payload: _Optional[bytes] = ...) -> None: ...

class AuthContainer(_message.Message):
    __slots__ = ("protectedPayload", "algo", "senderCertHash", "signatureHash", "senderCert", "cipherContext", "cipherData")
    PROTECTEDPAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ALGO_FIELD_NUMBER: _ClassVar[int]
    SENDERCERTHASH_FIELD_NUMBER: _ClassVar[int]
    SIGNATUREHASH_FIELD_NUMBER: _ClassVar[int]
    SENDERCERT_FIELD_NUMBER: _ClassVar[int]
    CIPHERCONTEXT_FIELD_NUMBER: _ClassVar[int]
    CIPHERDATA_FIELD_NUMBER: _ClassVar[int]
    protectedPayload: AuthBody
    algo: int
    senderCertHash: bytes
    signatureHash: bytes
    senderCert: bytes
    cipherContext: bytes
    cipherData: bytes
    def __init__(self, protectedPayload: _Optional[_Union[AuthBody, _Mapping]] = ..., algo: _Optional[int] = ..., senderCertHash: _Optional[bytes] = ..., signatureHash: _Optional[bytes] = ..., senderCert: _Optional[bytes] = ..., cipherContext: _Optional[bytes] = ..., cipherData: _Optional[bytes] = ...) -> None: ...

class ZCert(_message.Message):
    __slots__ = ("type", "cert")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    CERT_FIELD_NUMBER: _ClassVar[int]
    type: int
    cert: bytes
    def __init__(self, type: _Optional[int] = ..., cert: _Optional[bytes] = ...) -> None: ...

class ZControllerCert(_message.Message):
    __slots__ = ("certs",)
    CERTS_FIELD_NUMBER: _ClassVar[int]
    certs: _containers.RepeatedCompositeFieldContainer[ZCert]
    def __init__(self, certs: _Optional[_Iterable[_Union[ZCert, _Mapping]]] = ...) -> None: ...
