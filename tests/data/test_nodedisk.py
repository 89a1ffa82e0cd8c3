"""Where a node keeps its own copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from legoray.data.nodedisk import file_system, is_network, node_cache

MOUNTS = """\
proc /proc proc rw 0 0
/dev/vda / ext4 rw 0 0
server:/all /shared nfs4 rw 0 0
tmpfs /shared/fast tmpfs rw 0 0
s3 /my\\040bucket fuse.s3fs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/home/me", "ext4", False),
        ("/shared/legoray/states", "nfs4", True),
        ("/shared/fast/states", "tmpfs", False),
        ("/sharedness", "ext4", False),
        ("/my bucket/x", "fuse.s3fs", True),
    ],
)
def test_the_longest_mount_point_decides(tmp_path, path, kind, network):
    (tmp_path / "mounts").write_text(MOUNTS)
    found = file_system(Path(path), tmp_path / "mounts")
    assert (found, is_network(found)) == (kind, network)


def test_the_environment_decides_outright(tmp_path, monkeypatch):
    monkeypatch.delenv("LEGORAY_NODE_CACHE", raising=False)
    assert node_cache(tmp_path) is None  # a disk of this machine
    monkeypatch.setenv("LEGORAY_NODE_CACHE", str(tmp_path / "own"))
    assert node_cache(tmp_path) == tmp_path / "own"
    monkeypatch.setenv("LEGORAY_NODE_CACHE", "off")
    assert node_cache(tmp_path) is None
