import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionContext(_message.Message):
    __slots__ = ("session_id", "customer_id", "site_code", "currency", "cart_id", "target_location", "language", "context", "metadata", "additional_properties", "rounded_attributes")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_CODE_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    CART_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_LOCATION_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ADDITIONAL_PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    ROUNDED_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    customer_id: str
    site_code: str
    currency: str
    cart_id: str
    target_location: str
    language: str
    context: _struct_pb2.Struct
    metadata: Metadata
    additional_properties: _struct_pb2.Struct
    rounded_attributes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_id: _Optional[str] = ..., customer_id: _Optional[str] = ..., site_code: _Optional[str] = ..., currency: _Optional[str] = ..., cart_id: _Optional[str] = ..., target_location: _Optional[str] = ..., language: _Optional[str] = ..., context: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., metadata: _Optional[_Union[Metadata, _Mapping]] = ..., additional_properties: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., rounded_attributes: _Optional[_Iterable[str]] = ...) -> None: ...

class Metadata(_message.Message):
    __slots__ = ("version", "created_at", "modified_at")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    MODIFIED_AT_FIELD_NUMBER: _ClassVar[int]
    version: int
    created_at: _timestamp_pb2.Timestamp
    modified_at: _timestamp_pb2.Timestamp
    def __init__(self, version: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., modified_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class VersionConflict(_message.Message):
    __slots__ = ("expected_version", "current", "current_version")
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    CURRENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    expected_version: int
    current: SessionContext
    current_version: int
    def __init__(self, expected_version: _Optional[int] = ..., current: _Optional[_Union[SessionContext, _Mapping]] = ..., current_version: _Optional[int] = ...) -> None: ...

class ReadOptions(_message.Message):
    __slots__ = ("max_age", "min_version")
    MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    max_age: _duration_pb2.Duration
    min_version: int
    def __init__(self, max_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., min_version: _Optional[int] = ...) -> None: ...

class GetSessionContextRequest(_message.Message):
    __slots__ = ("tenant", "session_id", "read_options")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    READ_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_id: str
    read_options: ReadOptions
    def __init__(self, tenant: _Optional[str] = ..., session_id: _Optional[str] = ..., read_options: _Optional[_Union[ReadOptions, _Mapping]] = ...) -> None: ...

class GetSessionContextResponse(_message.Message):
    __slots__ = ("session_context",)
    SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    session_context: SessionContext
    def __init__(self, session_context: _Optional[_Union[SessionContext, _Mapping]] = ...) -> None: ...

class BatchGetSessionContextsRequest(_message.Message):
    __slots__ = ("tenant", "session_ids", "read_options")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_IDS_FIELD_NUMBER: _ClassVar[int]
    READ_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_ids: _containers.RepeatedScalarFieldContainer[str]
    read_options: ReadOptions
    def __init__(self, tenant: _Optional[str] = ..., session_ids: _Optional[_Iterable[str]] = ..., read_options: _Optional[_Union[ReadOptions, _Mapping]] = ...) -> None: ...

class BatchGetSessionContextsResponse(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[BatchGetSessionContextsEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[BatchGetSessionContextsEntry, _Mapping]]] = ...) -> None: ...

class BatchGetSessionContextsEntry(_message.Message):
    __slots__ = ("session_id", "session_context")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    session_context: SessionContext
    def __init__(self, session_id: _Optional[str] = ..., session_context: _Optional[_Union[SessionContext, _Mapping]] = ...) -> None: ...

class ReplaceSessionContextRequest(_message.Message):
    __slots__ = ("tenant", "session_id", "session_context", "expected_version", "upsert", "omit_session_context")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    UPSERT_FIELD_NUMBER: _ClassVar[int]
    OMIT_SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_id: str
    session_context: SessionContext
    expected_version: int
    upsert: bool
    omit_session_context: bool
    def __init__(self, tenant: _Optional[str] = ..., session_id: _Optional[str] = ..., session_context: _Optional[_Union[SessionContext, _Mapping]] = ..., expected_version: _Optional[int] = ..., upsert: _Optional[bool] = ..., omit_session_context: _Optional[bool] = ...) -> None: ...

class ReplaceSessionContextResponse(_message.Message):
    __slots__ = ("session_context",)
    SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    session_context: SessionContext
    def __init__(self, session_context: _Optional[_Union[SessionContext, _Mapping]] = ...) -> None: ...

class PatchSessionContextRequest(_message.Message):
    __slots__ = ("tenant", "session_id", "session_context", "update_mask", "expected_version", "omit_session_context")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    OMIT_SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_id: str
    session_context: SessionContext
    update_mask: _field_mask_pb2.FieldMask
    expected_version: int
    omit_session_context: bool
    def __init__(self, tenant: _Optional[str] = ..., session_id: _Optional[str] = ..., session_context: _Optional[_Union[SessionContext, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., expected_version: _Optional[int] = ..., omit_session_context: _Optional[bool] = ...) -> None: ...

class PatchSessionContextResponse(_message.Message):
    __slots__ = ("session_context", "attempts")
    SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    session_context: SessionContext
    attempts: int
    def __init__(self, session_context: _Optional[_Union[SessionContext, _Mapping]] = ..., attempts: _Optional[int] = ...) -> None: ...

class AddAttributeRequest(_message.Message):
    __slots__ = ("tenant", "session_id", "attribute_name", "value", "expected_version", "omit_session_context")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    OMIT_SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_id: str
    attribute_name: str
    value: _struct_pb2.Value
    expected_version: int
    omit_session_context: bool
    def __init__(self, tenant: _Optional[str] = ..., session_id: _Optional[str] = ..., attribute_name: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., expected_version: _Optional[int] = ..., omit_session_context: _Optional[bool] = ...) -> None: ...

class AddAttributeResponse(_message.Message):
    __slots__ = ("session_context",)
    SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    session_context: SessionContext
    def __init__(self, session_context: _Optional[_Union[SessionContext, _Mapping]] = ...) -> None: ...

class RemoveAttributeRequest(_message.Message):
    __slots__ = ("tenant", "session_id", "attribute_name", "expected_version", "omit_session_context")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_NAME_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    OMIT_SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_id: str
    attribute_name: str
    expected_version: int
    omit_session_context: bool
    def __init__(self, tenant: _Optional[str] = ..., session_id: _Optional[str] = ..., attribute_name: _Optional[str] = ..., expected_version: _Optional[int] = ..., omit_session_context: _Optional[bool] = ...) -> None: ...

class RemoveAttributeResponse(_message.Message):
    __slots__ = ("session_context",)
    SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    session_context: SessionContext
    def __init__(self, session_context: _Optional[_Union[SessionContext, _Mapping]] = ...) -> None: ...

class GetOwnSessionContextRequest(_message.Message):
    __slots__ = ("tenant", "read_options")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    READ_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    read_options: ReadOptions
    def __init__(self, tenant: _Optional[str] = ..., read_options: _Optional[_Union[ReadOptions, _Mapping]] = ...) -> None: ...

class GetOwnSessionContextResponse(_message.Message):
    __slots__ = ("session_context",)
    SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    session_context: SessionContext
    def __init__(self, session_context: _Optional[_Union[SessionContext, _Mapping]] = ...) -> None: ...

class UpdateOwnSessionContextRequest(_message.Message):
    __slots__ = ("tenant", "session_context", "update_mask", "expected_version", "omit_session_context")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    OMIT_SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_context: SessionContext
    update_mask: _field_mask_pb2.FieldMask
    expected_version: int
    omit_session_context: bool
    def __init__(self, tenant: _Optional[str] = ..., session_context: _Optional[_Union[SessionContext, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., expected_version: _Optional[int] = ..., omit_session_context: _Optional[bool] = ...) -> None: ...

class UpdateOwnSessionContextResponse(_message.Message):
    __slots__ = ("session_context", "attempts")
    SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    session_context: SessionContext
    attempts: int
    def __init__(self, session_context: _Optional[_Union[SessionContext, _Mapping]] = ..., attempts: _Optional[int] = ...) -> None: ...

class AddOwnAttributeRequest(_message.Message):
    __slots__ = ("tenant", "attribute_name", "value", "expected_version", "omit_session_context")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    OMIT_SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    attribute_name: str
    value: _struct_pb2.Value
    expected_version: int
    omit_session_context: bool
    def __init__(self, tenant: _Optional[str] = ..., attribute_name: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., expected_version: _Optional[int] = ..., omit_session_context: _Optional[bool] = ...) -> None: ...

class AddOwnAttributeResponse(_message.Message):
    __slots__ = ("session_context",)
    SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    session_context: SessionContext
    def __init__(self, session_context: _Optional[_Union[SessionContext, _Mapping]] = ...) -> None: ...

class RemoveOwnAttributeRequest(_message.Message):
    __slots__ = ("tenant", "attribute_name", "expected_version", "omit_session_context")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_NAME_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    OMIT_SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    attribute_name: str
    expected_version: int
    omit_session_context: bool
    def __init__(self, tenant: _Optional[str] = ..., attribute_name: _Optional[str] = ..., expected_version: _Optional[int] = ..., omit_session_context: _Optional[bool] = ...) -> None: ...

class RemoveOwnAttributeResponse(_message.Message):
    __slots__ = ("session_context",)
    SESSION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    session_context: SessionContext
    def __init__(self, session_context: _Optional[_Union[SessionContext, _Mapping]] = ...) -> None: ...
