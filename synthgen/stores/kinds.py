"""What differs between the kinds of stores: packages, credentials, writes with a condition, versions and errors."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import fsspec
from fsspec import AbstractFileSystem

CONFLICT, MISSING, REFUSED, NO_CREDENTIALS = "conflict", "missing", "refused", "no credentials"
"""Why a request fails. It would fail again, so it is not repeated."""
_STATUS = {401: REFUSED, 403: REFUSED, 404: MISSING, 412: CONFLICT}
_NO_CREDENTIALS = (
    *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"),
    *("DefaultCredentialsError", "ClientAuthenticationError", "CredentialUnavailableError", "AzureSigningError"),
)
_FORBIDDEN = "Forbidden: "  # gcsfs puts the path behind this word, and the reason into the next line

for _library in ("gcsfs", "azure"):  # without a handler, Python prints their warnings and tracebacks
    logging.getLogger(_library).addHandler(logging.NullHandler())


def connect(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of fsspec for a URL, and the path there. Raises ImportError and ValueError."""
    if kind_of(url) is not _GS:
        connected: tuple[AbstractFileSystem, str] = fsspec.url_to_fs(url)
        return connected
    # The class of gcsfs that fsspec takes replaces objects of zonal buckets whatever the condition of a write says.
    from gcsfs.core import GCSFileSystem

    return GCSFileSystem(), str(GCSFileSystem._strip_protocol(url))


def version_of(info: dict[str, object]) -> str:
    """A text that is different for each content of an object. Each kind of store has its own key for this text."""
    for key in ("generation", "ETag", "etag", "blob_id", "created", "mtime", "LastModified"):
        if (value := info.get(key)) is not None:  # some stores give a time as a number in lists alone
            return str(value.timestamp() if isinstance(value, datetime) else value)
    return str(info["size"])


def cause_of(error: Exception) -> str:
    """Why a request failed, or '' for a reason that may pass. S3 answers 409 (ConditionalRequestConflict) while an
    earlier attempt of the same write is still at work. Such a write is repeated, as after any other failure.
    """
    if isinstance(error, FileExistsError):
        return CONFLICT
    if isinstance(error, FileNotFoundError):
        return MISSING
    if isinstance(error, PermissionError) or str(error).startswith(_FORBIDDEN):
        return REFUSED
    if cause := _STATUS.get(_status(error)):
        return cause
    return NO_CREDENTIALS if type(error).__name__ in _NO_CREDENTIALS else ""


def reason(error: Exception) -> str:
    """The line of an error that says most."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[1] if lines[0].startswith(_FORBIDDEN) and len(lines) > 1 else lines[0]


def _status(error: BaseException | None) -> int:
    """The status in the answer of a web server, or 0. s3fs keeps the error with the answer as the cause of its own."""
    for name in ("status_code", "code", "status"):
        if str(value := getattr(error, name, None)).isdigit():
            return int(str(value))
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return _status(error.__cause__) if error else 0


def _write(fs: AbstractFileSystem, path: str, data: bytes, version: str | None) -> object:
    return fs.pipe_file(path, data, **({"mode": "create"} if version is None else {}))


def _write_s3(fs: AbstractFileSystem, path: str, data: bytes, version: str | None) -> object:
    return fs.pipe_file(path, data, **({"mode": "create"} if version is None else {"IfMatch": version}))


def _write_gs(fs: AbstractFileSystem, path: str, data: bytes, version: str | None) -> object:
    """gcsfs takes no condition except "create", so this function writes the request."""
    bucket, _, name = path.partition("/")
    edge = secrets.token_hex(16)
    head = f"--{edge}\r\nContent-Type: application/json\r\n\r\n{json.dumps({'name': name})}\r\n"
    head += f"--{edge}\r\nContent-Type: application/octet-stream\r\n\r\n"
    return fs.call(
        "POST",
        fs.base.replace("/storage/v1/", "/upload/storage/v1/") + "b/{}/o",
        bucket,
        headers={"Content-Type": f'multipart/related; boundary="{edge}"'},
        data=head.encode() + data + f"\r\n--{edge}--".encode(),
        json_out=True,
        uploadType="multipart",
        ifGenerationMatch="0" if version is None else version,
    )


def _write_az(fs: AbstractFileSystem, path: str, data: bytes, version: str | None) -> object:
    if version is None:
        return fs.pipe_file(path, data, mode="create")
    from azure.core import MatchConditions

    return fs.pipe_file(path, data, etag=version, match_condition=MatchConditions.IfNotModified)


class Kind(NamedTuple):
    """A kind of store. `write` has the arguments (file system, path, data, version). It writes an object only if there
    is none (version None), or if the object has this version. It may return what the store says about the object.
    """

    package: str
    install: str
    hint: str
    write: Callable[[AbstractFileSystem, str, bytes, str | None], object] = _write


_DOCS = "see docs/scale.md"
_S3 = Kind(
    "s3fs",
    "pip install 'synthgen-distill[stores]'",
    f"set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; {_DOCS}",
    _write_s3,
)
_GS = Kind(
    "gcsfs",
    "pip install gcsfs",
    f"set GOOGLE_APPLICATION_CREDENTIALS, or give `gcloud auth application-default login`; {_DOCS}",
    _write_gs,
)
_AZ = Kind(
    "adlfs",
    "pip install adlfs",
    f"set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and `az login`; {_DOCS}",
    _write_az,
)
_HF = Kind("huggingface_hub", "pip install huggingface_hub", f"set HF_TOKEN; {_DOCS}")
_WEB = Kind("aiohttp", "pip install aiohttp", "synthgen reads only pages that need no password")
KINDS = {
    **{"s3": _S3, "s3a": _S3, "gs": _GS, "gcs": _GS, "az": _AZ, "abfs": _AZ, "abfss": _AZ},
    **{"hf": _HF, "http": _WEB, "https": _WEB},
}


def kind_of(url: str) -> Kind:
    """The kind of store of a URL."""
    scheme = url.partition("://")[0]
    return KINDS.get(scheme) or Kind(scheme, f"pip install {scheme}", _DOCS)
