"""Folders between two nodes and a real S3 service: never half of one, and nothing moved twice."""

from __future__ import annotations

import sys
import threading

import pytest
from storage_server import BUCKET, ask_only, served

from legoray.errors import DamagedError, InputError
from legoray.storage import folders, remote
from legoray.storage.address import address_of, parse, place
from legoray.storage.folders import fetch, get_file, names_below, send_file, share, withdraw


@pytest.fixture(scope="module")
def server():
    with served() as running:
        yield running


@pytest.fixture
def on(server, monkeypatch, tmp_path, request):
    """Be another node: gives the folder of an address there."""
    ask_only(server, monkeypatch)

    def node(name: str):
        monkeypatch.setenv("LEGORAY_NODE_CACHE", str(tmp_path / name))
        return place(f"s3://{BUCKET}/{request.node.name}/folder")

    return node


def fill(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def content(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


def test_what_one_node_shares_another_fetches(on):
    first = on("first")
    fill(first, a="1", sub__b="2", last__c="3", **{".lock": "x"})
    share(first, leave=("last",))
    second = on("second")
    assert second != first
    assert fetch(second)
    assert content(second) == {"a": "1", "sub/b": "2"}
    fill(second, a="new")
    (second / "sub" / "b").unlink()
    fill(second, own="stays here")
    share(second, leave=("own",))
    first = on("first")
    assert fetch(first)
    assert content(first) == {"a": "new", "last/c": "3", ".lock": "x"}


def test_nothing_is_moved_twice(on, monkeypatch, server):
    first = on("first")
    fill(first, a="1" * 100, b="2")
    share(first)
    before = [name for name in server.names() if not name.endswith("/")]
    moved = []
    upload, download = remote.upload, remote.download
    monkeypatch.setattr(remote, "upload", lambda p, a: (moved.append(p.name), upload(p, a)))
    monkeypatch.setattr(
        remote, "download", lambda a, t, **k: (moved.append(t.name), download(a, t, **k))[1]
    )
    share(first)
    assert fetch(first)
    assert moved == []
    fill(first, b="3")
    share(first)
    second = on("second")
    assert fetch(second)
    assert moved == ["b", "a", "b"]
    assert fetch(second)
    assert moved == ["b", "a", "b"]
    left = [name for name in server.names() if not name.endswith("/")]
    assert len(left) == len(before)  # what is no longer named is gone


def test_half_a_folder_is_never_seen(on, monkeypatch):
    """Killed between two files, the address still holds the old content."""
    first = on("first")
    fill(first, a="old", b="old")
    share(first)
    fill(first, a="new", b="new")
    upload, calls = remote.upload, []

    def killed(path, address):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        upload(path, address)

    with monkeypatch.context() as patch:
        patch.setattr(remote, "upload", killed)
        with pytest.raises(KeyboardInterrupt):
            share(first)
    second = on("second")
    assert fetch(second)
    assert content(second) == {"a": "old", "b": "old"}
    first = on("first")
    share(first)
    second = on("second")
    assert fetch(second)
    assert content(second) == {"a": "new", "b": "new"}


def test_readers_see_one_version_while_it_changes(on, tmp_path):
    """A folder is replaced again and again while another node fetches it."""
    first = on("first")
    fill(first, a="0", b="0")
    share(first)
    stop, second = threading.Event(), on("second")
    wrong = []

    def read():
        while not stop.is_set():
            try:
                fetch(second)
            except InputError as error:
                wrong.append(str(error))
            found = content(second)
            if found.get("a") != found.get("b"):
                wrong.append(found)

    # both nodes are of this process: the notes lie beside the folders that they are about
    thread = threading.Thread(target=read)
    thread.start()
    address = address_of(second)
    try:
        for number in range(1, 15):
            for name in ("a", "b"):
                fill(first, **{name: str(number)})
            sums = {name: folders._sha256(first / name) for name in ("a", "b")}
            for name, sum_ in sums.items():
                remote.upload(first / name, folders._object(address, name, sum_))
            listing = folders.Listing(files=sums)
            remote.write(address / folders.NAME, listing.model_dump_json().encode())
    finally:
        stop.set()
        thread.join()
    assert wrong == []
    fetch(second)
    assert content(second) == {"a": "14", "b": "14"}


def test_only_what_is_still_ours_is_withdrawn(on):
    first = on("first")
    fill(first, a="1")
    share(first)
    second = on("second")
    fetch(second)
    fill(second, a="2")
    share(second)
    first = on("first")
    withdraw(first)
    assert fetch(first)
    assert content(first) == {"a": "2"}
    withdraw(first)
    assert not fetch(on("third"))


def test_all_is_withdrawn_that_any_node_has_sent(on, server, monkeypatch, request):
    first = on("first")
    fill(first, a="1")
    share(first)
    fill(first, a="2")
    with monkeypatch.context() as patch:  # it dies before it names what it has sent
        patch.setattr(remote, "write", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            share(first)
    second = on("second")
    withdraw(second, of_any_node=True)
    assert not fetch(second)
    left = server.names(f"{request.node.name}/")
    assert [name for name in left if not name.endswith("/")] == []


def test_damage_is_told(on, server):
    first = on("first")
    fill(first, a="1")
    share(first)
    prefix = address_of(first).key
    (name,) = [n for n in server.names(prefix) if "/a-" in n]
    server.client().put_object(Bucket=BUCKET, Key=name, Body=b"other")
    second = on("second")
    with pytest.raises(DamagedError, match="checksum is another"):
        fetch(second)
    assert not (second / "a").exists()
    server.client().delete_object(Bucket=BUCKET, Key=name)
    with pytest.raises(DamagedError, match="is missing"):
        fetch(second)
    key = f"{prefix}/{folders.NAME}"
    server.client().put_object(Bucket=BUCKET, Key=key, Body=b"{")
    with pytest.raises(DamagedError, match=r"folder\.json: is damaged"):
        fetch(second)


def test_a_local_file_that_was_changed_is_fetched_again(on):
    first = on("first")
    fill(first, a="1")
    share(first)
    second = on("second")
    fetch(second)
    fill(second, a="damaged")
    assert fetch(second)
    assert content(second) == {"a": "1"}


def test_single_files(on):
    first = on("first")
    fill(first, blocks__a="1")
    send_file(first / "blocks" / "a")
    second = on("second")
    assert names_below(second / "blocks") == ["a"]
    assert get_file(second / "blocks" / "a")
    assert not get_file(second / "blocks" / "b")
    assert content(second) == {"blocks/a": "1"}


def test_a_big_file_comes_whole(on):
    first = on("first")
    fill(first, big="0123456789abcdef" * (1 << 21))
    share(first)
    second = on("second")
    assert fetch(second)
    assert content(second) == content(first)


def test_plain_folders_are_left_alone(tmp_path):
    fill(tmp_path, a="1")
    share(tmp_path)
    withdraw(tmp_path)
    assert fetch(tmp_path)
    assert names_below(tmp_path) == []
    assert content(tmp_path) == {"a": "1"}


@pytest.mark.parametrize(
    ("change", "address", "said"),
    [
        ({}, "s3://no-such-bucket/x", "there is no such bucket"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "s3://bucket/x", "cannot be reached"),
    ],
)
def test_trouble_is_told_at_once(server, monkeypatch, change, address, said):
    remote._filesystem.cache_clear()
    for name, value in {**server.env, **change}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(remote.UnreachableError) as told:
        remote.check(parse(address, ""))
    assert str(told.value).startswith(f"{address}: ")
    assert said in str(told.value)
    remote._filesystem.cache_clear()


def test_a_service_that_comes_back_is_waited_for(on, server, monkeypatch):
    first = on("first")
    address = address_of(first) / "x"
    monkeypatch.setattr(remote, "_filesystem", remote._filesystem)
    failures = iter([OSError("AWS Error NETWORK_CONNECTION during PutObject operation")] * 2)
    opened = remote.filesystem

    def flaky(where):
        for failure in failures:
            raise failure
        return opened(where)

    monkeypatch.setattr(remote, "filesystem", flaky)
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    remote.write(address, b"1")
    assert remote.read(address) == b"1"
