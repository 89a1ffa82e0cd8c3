"""Single files at an address: read, written whole or not at all, listed and removed.

Through pyarrow's file systems. What goes wrong there is told in a user's words, and what may pass
by itself (a network that is gone for a moment) is tried again for a while.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from legoray.errors import DamagedError, InputError, Problem
from legoray.storage.address import Address, endpoint

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

PATIENCE = 60.0  # seconds for which a service that does not answer is asked again
_BLOCK = 8 << 20
_PASSING = ("NETWORK_CONNECTION", "SLOW_DOWN", "SERVICE_UNAVAILABLE", "INTERNAL_FAILURE", "TIMEOUT")
T = TypeVar("T")


class UnreachableError(DamagedError):
    """Shared storage that does not take or give a file: going on would lose what is written."""


@functools.lru_cache(maxsize=8)
def _filesystem(scheme: str, bucket: str, service: str) -> FileSystem:
    from pyarrow import fs

    if scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=30))
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        region = "us-east-1" if service else fs.resolve_s3_region(bucket)
    options: dict[str, Any] = {"endpoint_override": service} if service else {}
    return fs.S3FileSystem(
        region=region,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
        connect_timeout=10,
        request_timeout=60,
        allow_delayed_open=True,  # small files in one request
        **options,
    )


def filesystem(address: Address) -> FileSystem:
    """The pyarrow file system of an address.

    Raises:
        InputError: it cannot be opened: no such bucket, no credentials.
    """
    try:
        return _filesystem(address.scheme, address.bucket, endpoint())
    except (OSError, ValueError) as error:
        raise _told(address, error) from None


def read(address: Address, *, patience: float = PATIENCE) -> bytes | None:
    """A file's content; None where there is no such file.

    Raises:
        UnreachableError: the service does not give it.
    """

    def call() -> bytes | None:
        try:
            with filesystem(address).open_input_stream(address.path) as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    return _tried(address, call, patience)


def write(address: Address, content: bytes, *, patience: float = PATIENCE) -> None:
    """Write a small file.

    Raises:
        UnreachableError: the service does not take it.
    """

    def call() -> None:
        with filesystem(address).open_output_stream(address.path) as stream:
            stream.write(content)

    _tried(address, call, patience)


def upload(path: Path, address: Address) -> None:
    """Send a file of any size; it appears when it is whole.

    Raises:
        UnreachableError: the service does not take it.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if size <= _BLOCK:
        write(address, path.read_bytes())
        return

    def call() -> None:
        with (
            path.open("rb") as source,
            filesystem(address).open_output_stream(address.path) as stream,
        ):
            while block := source.read(_BLOCK):
                stream.write(block)

    _tried(address, call, PATIENCE)


def download(address: Address, target: Path, *, sha256: str = "") -> bool:
    """Fetch a file under a temporary name and move it into place; False where there is none.

    Args:
        address: of the file.
        target: where it goes.
        sha256: that it must have, if that is known.

    Raises:
        UnreachableError: the service does not give it.
        DamagedError: it is not what was written.
        InputError: this node's disk does not take it.
    """
    working = target.with_name(f".building-{target.name}-{os.getpid()}")

    def call() -> str | None:
        found = hashlib.sha256()
        try:
            with (
                filesystem(address).open_input_stream(address.path) as stream,
                working.open("wb") as file,
            ):
                while block := stream.read(_BLOCK):
                    found.update(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError:
            return None
        return found.hexdigest()

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = _tried(address, call, PATIENCE)
        if digest is None:
            return False
        if sha256 and digest != sha256:
            message = "its checksum is another than when it was written"
            raise DamagedError(Problem(str(address), message, "delete it, or put it back"))
        os.replace(working, target)
        return True
    except OSError as error:
        raise InputError(Problem(str(target), f"cannot be written: {error.strerror}")) from None
    finally:
        working.unlink(missing_ok=True)


def listing(address: Address) -> dict[str, tuple[int, datetime]]:
    """The files below an address: name from there -> bytes and when it was written.

    Raises:
        UnreachableError: the service does not answer.
    """
    from pyarrow import fs

    def call() -> dict[str, tuple[int, datetime]]:
        selector = fs.FileSelector(address.path, recursive=True, allow_not_found=True)
        found = filesystem(address).get_file_info(selector)
        return {
            info.path[len(address.path) + 1 :]: (info.size, info.mtime)
            for info in found
            if info.type == fs.FileType.File
        }

    return _tried(address, call, PATIENCE)


def written_at(address: Address) -> datetime | None:
    """When a file was written, by the service's own clock; None where there is none.

    Raises:
        UnreachableError: the service does not answer.
    """
    from pyarrow import fs

    def call() -> datetime | None:
        info = filesystem(address).get_file_info(address.path)
        return info.mtime if info.type == fs.FileType.File else None

    return _tried(address, call, PATIENCE)


def remove(address: Address) -> None:
    """Remove a file, if it is there.

    Raises:
        UnreachableError: the service does not do it.
    """

    def call() -> None:
        try:
            filesystem(address).delete_file(address.path)
        except FileNotFoundError:
            return

    _tried(address, call, PATIENCE)


def copy(source: Address, target: Address) -> None:
    """Copy a file within a bucket.

    Raises:
        UnreachableError: the service does not do it.
    """
    _tried(source, lambda: filesystem(source).copy_file(source.path, target.path), PATIENCE)


def check(address: Address) -> None:
    """See that files can be written, read and removed at an address; nothing is waited for.

    Raises:
        UnreachableError: they cannot; it says why.
    """
    probe = address / f".legoray-probe-{os.urandom(6).hex()}"
    try:
        write(probe, b"legoray", patience=0.0)
        given = read(probe, patience=0.0)
        remove(probe)
    except UnreachableError as error:
        told = [Problem(str(address), p.message, p.hint) for p in error.problems]
        raise UnreachableError(*told) from None
    if given != b"legoray":
        raise UnreachableError(Problem(str(address), "does not give what was written there"))


@functools.lru_cache(maxsize=64)
def ensure(address: Address) -> None:
    """As `check`, once in a process.

    Raises:
        UnreachableError: as `check`.
    """
    check(address)


def _tried(address: Address, call: Callable[[], T], patience: float) -> T:
    end, pause = time.monotonic() + patience, 1.0
    while True:
        try:
            return call()
        except InputError:
            raise
        except (OSError, ValueError) as error:
            if getattr(error, "filename", None) is not None:
                raise  # of a file on this node
            passing = any(word in str(error).upper() for word in _PASSING)
            if not passing or time.monotonic() + pause > end:
                raise _told(address, error) from None
        time.sleep(pause)
        pause = min(2 * pause, 15.0)


_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the machine's role give them"
_REASONS = (
    (
        ("NO_SUCH_BUCKET", "BUCKET NOT FOUND", "BUCKET DOES NOT EXIST"),
        "there is no such bucket",
        "",
    ),
    (
        ("INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_CLIENT_TOKEN", "SIGNATURE"),
        "the credentials are not accepted",
        _KEYS,
    ),
    (
        ("ACCESS_DENIED", "HTTP STATUS CODE 403", "HTTP RESPONSE CODE 403", "PERMISSION"),
        "access is denied",
        f"the credentials must be allowed to read, write and delete there; {_KEYS}",
    ),
    (("CREDENTIAL", "UNAUTHENTICATED", "OAUTH"), "there are no credentials", _KEYS),
    (("NETWORK_CONNECTION", "COULD NOT CONNECT", "RESOLVE"), "the service cannot be reached", ""),
)


def _told(address: Address, error: Exception) -> UnreachableError:
    """An error of pyarrow's in a user's words; its own stand behind them."""
    own = " ".join(str(error).split()) or type(error).__name__
    upper = own.upper()
    message, hint = "the service refuses", ""
    for words, reason, advice in _REASONS:
        if any(word in upper for word in words):
            message, hint = reason, advice
            break
    if address.scheme == "gs" and hint:
        hint = hint.replace(_KEYS, "`gcloud auth application-default login` or the machine's role")
    if message == "the service cannot be reached" and address.scheme == "s3":
        hint = f"AWS_ENDPOINT_URL is {endpoint() or 'not set, so Amazon is asked'}"
    return UnreachableError(Problem(str(address), f"{message}: {own[:300]}", hint))
