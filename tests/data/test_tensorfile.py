"""Files of tensors: every byte is checked, and safetensors reads them."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import load_file

from legoray.data.tensorfile import check_file, map_tensors, read_header, write_tensors
from legoray.errors import DamagedError

TENSORS = {
    "odd": torch.arange(15, dtype=torch.uint8).view(5, 3),
    "h": torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "x": torch.linspace(0, 1, 5),
    "offsets": torch.arange(4),
    "none": torch.empty(0, 4),
}


@pytest.fixture
def path(tmp_path):
    write_tensors(tmp_path / "a.safetensors", TENSORS, {"told": 'äöü "quoted"'})
    return tmp_path / "a.safetensors"


def test_what_is_written_is_read(path):
    header = check_file(path, "states")
    assert header.note["told"] == 'äöü "quoted"'
    for found in (map_tensors(path, header), load_file(path)):
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_any_byte_that_changed_is_found(path):
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        os.utime(path, ns=(place, place))
        with pytest.raises(DamagedError, match="are damaged"):
            check_file(path, "states")


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_file_that_was_cut_is_found_without_reading_it(path, size):
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    with pytest.raises(DamagedError, match=f"delete {path}"):
        read_header(path, "states")


def test_mapping_holds_no_descriptor(path):
    before = len(os.listdir("/proc/self/fd"))
    kept = [map_tensors(path, read_header(path, "states")) for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(kept) == 20
