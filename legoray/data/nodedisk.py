"""Where a node keeps its own copies of what lies on network storage.

Where the shared folder's file system is a network's, each node copies what it reads of the hidden
states; `LEGORAY_NODE_CACHE=<folder>` names the place outright, and `LEGORAY_NODE_CACHE=off` maps
the shared files themselves.
"""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

from legoray.storage.address import address_of

_NETWORK = (
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "ceph", "glusterfs", "beegfs", "gpfs", "9p",
    "afs", "pvfs2", "orangefs", "wekafs", "virtiofs", "fuse.",
)  # fmt: skip


def node_cache(home: Path) -> Path | None:
    """Where this node keeps its copies; None where it maps the shared files."""
    wish = os.environ.get("LEGORAY_NODE_CACHE", "")
    if wish == "off" or address_of(home) is not None:
        return None  # a mirror of an address is on this node's disk as it is
    if wish:
        return Path(wish).expanduser().absolute()
    if not is_network(file_system(home)):
        return None
    for place in _own_places():
        kind = file_system(place)
        if not is_network(kind) and kind not in {"tmpfs", "ramfs"}:
            return place
    return None


def _own_places() -> list[Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [
        cache / "legoray" / "states",
        Path(tempfile.gettempdir()) / f"legoray-{getpass.getuser()}" / "states",
    ]


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system that a path lies on; empty where nobody says."""
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    real = path.absolute().resolve()
    found, kind = -1, ""
    for fields in lines:
        point = fields[1].replace("\\040", " ")
        if real.is_relative_to(point) and len(Path(point).parts) >= found:
            found, kind = len(Path(point).parts), fields[2]
    return kind


def is_network(kind: str) -> bool:
    """Whether a type of file system is a network's; a container's own layers are not."""
    if kind == "fuse.fuse-overlayfs":
        return False
    return any(kind.startswith(name) if name.endswith(".") else kind == name for name in _NETWORK)
