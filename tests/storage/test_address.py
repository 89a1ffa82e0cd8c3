"""Addresses, and the folders that mirror them."""

from __future__ import annotations

from pathlib import Path

import pytest

from legoray.config import home
from legoray.data.nodedisk import node_cache
from legoray.errors import InputError
from legoray.storage.address import (
    Address,
    address_of,
    is_address,
    mirror_of,
    mirrors,
    parse,
    place,
    portable,
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LEGORAY_NODE_CACHE", str(tmp_path / "cache"))
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/a/b", Address("s3", "bucket", "a/b")),
        ("s3://bucket", Address("s3", "bucket", "")),
        ("s3://my.bucket-1//a//b/", Address("s3", "my.bucket-1", "a/b")),
        ("gs://bucket/sweeps/x", Address("gs", "bucket", "sweeps/x")),
    ],
)
def test_an_address_is_scheme_bucket_and_key(text, expected, tmp_path):
    found = parse(text, "here")
    assert found == expected
    assert parse(str(found), "here") == found
    folder = mirror_of(found)
    assert folder.is_relative_to(tmp_path / "cache" / "remote" / expected.scheme)
    assert address_of(folder) == found
    assert portable(folder) == str(found)
    assert place(portable(folder / "x" / "y")) == folder / "x" / "y"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hdfs://host/x", "unknown scheme 'hdfs' (expected a path, s3://"),
        ("s3a://bucket/x", "unknown scheme 's3a' (did you mean 's3://'?"),
        ("gcs://bucket/x", "unknown scheme 'gcs' (did you mean 'gs://'?"),
        ("S3://bucket/x", "unknown scheme 'S3'"),
        ("s3:///x", "'' is no bucket"),
        ("s3://Bucket/x", "'Bucket' is no bucket"),
        ("s3://b/../x", "'b' is no bucket"),
        ("s3://bucket/../x", "'.' and '..' are not allowed"),
        ("s3://key:secret@bucket/x", "no options and no keys"),
        ("s3://bucket/x?region=y", "no options and no keys"),
    ],
)
def test_what_is_no_address_is_told(text, said, monkeypatch):
    with pytest.raises(InputError) as told:
        parse(text, "LEGORAY_HOME")
    assert str(told.value).startswith("LEGORAY_HOME: ")
    assert said in str(told.value)
    monkeypatch.setenv("LEGORAY_HOME", text)
    with pytest.raises(InputError, match="LEGORAY_HOME"):
        home()


def test_paths_are_themselves(tmp_path, monkeypatch):
    assert not is_address(tmp_path)
    assert not is_address("C:/x")
    assert address_of(tmp_path) is None
    assert address_of(mirrors()) is None
    assert portable(tmp_path) == str(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert place("a/b") == tmp_path / "a" / "b"


def test_home_may_be_an_address_and_is_no_network_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("LEGORAY_HOME", "s3://bucket/legoray")
    assert home() == tmp_path / "cache" / "remote" / "s3" / "bucket" / "legoray"
    assert node_cache(home() / "states") is None
    assert node_cache(Path("/elsewhere")) == tmp_path / "cache"


def test_two_services_do_not_share_a_mirror(monkeypatch):
    amazon = mirror_of(parse("s3://bucket/x", ""))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    other = mirror_of(parse("s3://bucket/x", ""))
    assert other != amazon
    assert address_of(other) == Address("s3", "bucket", "x")
    assert address_of(amazon) is None


def test_google_s_addresses_are_opened_by_pyarrow_s_own_file_system(monkeypatch):
    """No request is made: whether Google answers is not tested here."""
    from pyarrow.fs import GcsFileSystem

    from legoray.storage import remote

    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nowhere")
    remote._filesystem.cache_clear()
    address = parse("gs://bucket/a", "")
    assert isinstance(remote.filesystem(address), GcsFileSystem)
    assert address.path == "bucket/a"
