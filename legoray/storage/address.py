"""Addresses such as `s3://bucket/prefix`, and the folder of this node that mirrors each.

    <cache>/remote/s3/<bucket>/<key>            s3://<bucket>/<key>
    <cache>/remote/s3-<digest>/<bucket>/<key>   the same, of another service than Amazon's

Which is which follows from the names alone, so that any process of a node knows it. The node's
cache is `LEGORAY_NODE_CACHE`, or `legoray` below the user's own cache.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from legoray.errors import InputError, Problem, nearest

SERVICES = {"s3": "Amazon S3 or its like", "gs": "Google Cloud Storage"}
_FORM = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.S)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_EXAMPLE = "s3://bucket/prefix or gs://bucket/prefix"


@dataclass(frozen=True)
class Address:
    """A place in an object store."""

    scheme: str  # s3 | gs
    bucket: str
    key: str  # without slashes at its ends; empty for the whole bucket

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def __truediv__(self, name: str) -> Address:
        return Address(self.scheme, self.bucket, f"{self.key}/{name}".strip("/"))

    @property
    def path(self) -> str:
        """As pyarrow's file systems name it: bucket and key."""
        return f"{self.bucket}/{self.key}".rstrip("/")


def is_address(text: str | Path) -> bool:
    """Whether something is an address (of any scheme) and no path."""
    return _FORM.fullmatch(str(text)) is not None


def parse(text: str, where: str) -> Address:
    """An address, understood.

    Args:
        text: such as `s3://bucket/prefix`.
        where: who says so, for errors: a variable or an option.

    Raises:
        InputError: it is none, or of a service that is not known.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise InputError(Problem(where, f"'{text}' is no address", f"expected {_EXAMPLE}"))
    scheme, rest = found["scheme"], found["rest"]
    if scheme not in SERVICES:
        raise InputError(_unknown_scheme(text, scheme, where))
    if "?" in rest or "@" in rest or "#" in rest:
        message = f"'{text}': an address has no options and no keys in it"
        hint = "AWS_ENDPOINT_URL, AWS_REGION and the credentials' variables or files say the rest"
        raise InputError(Problem(where, message, hint))
    bucket, _, key = rest.partition("/")
    parts = [part for part in key.split("/") if part]
    if not _BUCKET.fullmatch(bucket):
        raise InputError(
            Problem(where, f"'{text}': '{bucket}' is no bucket", f"such as {_EXAMPLE}")
        )
    if any(part in (".", "..") for part in parts):
        raise InputError(Problem(where, f"'{text}': '.' and '..' are not allowed in an address"))
    return Address(scheme, bucket, "/".join(parts))


def _unknown_scheme(text: str, scheme: str, where: str) -> Problem:
    close = nearest(scheme, [*SERVICES, "file"])
    known = f"a path, s3:// ({SERVICES['s3']}) or gs:// ({SERVICES['gs']})"
    hint = (
        f"did you mean '{close}://'? expected {known}" if close in SERVICES else f"expected {known}"
    )
    return Problem(where, f"'{text}' has the unknown scheme '{scheme}'", hint)


def place(text: str | Path, where: str = "") -> Path:
    """The absolute path of a folder, or of this node's mirror of an address.

    Raises:
        InputError: as `parse`.
    """
    if is_address(text):
        return mirror_of(parse(str(text), where))
    return Path(text).expanduser().absolute()


def mirror_of(address: Address) -> Path:
    """The folder of this node that mirrors an address."""
    return mirrors() / _service(address.scheme) / address.bucket / address.key


def address_of(path: Path) -> Address | None:
    """The address that a folder or file mirrors; None for everything else."""
    root = mirrors()
    if not path.is_relative_to(root):
        return None
    service, bucket, *key = (*path.relative_to(root).parts, "", "")
    scheme = service.partition("-")[0]
    if scheme not in SERVICES or service != _service(scheme) or not bucket:
        return None
    return Address(scheme, bucket, "/".join(part for part in key if part))


def portable(path: str | Path) -> str:
    """How other nodes know a path: the address that it mirrors, or itself."""
    address = address_of(Path(path))
    return str(path) if address is None else str(address)


def mirrors() -> Path:
    """Where this node keeps its mirrors."""
    wish = os.environ.get("LEGORAY_NODE_CACHE", "")
    if wish and wish != "off":
        return Path(wish).expanduser().absolute() / "remote"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache.absolute() / "legoray" / "remote"


def endpoint() -> str:
    """The S3 service that is used instead of Amazon's; empty for that."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _service(scheme: str) -> str:
    if scheme == "s3" and endpoint():
        return f"s3-{hashlib.sha256(endpoint().encode()).hexdigest()[:8]}"
    return scheme
