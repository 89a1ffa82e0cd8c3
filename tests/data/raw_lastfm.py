"""The releases of Last.fm data of a world. In all of them an item is an artist."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from worlds import Event, Item, World

PROCESSOR = "lastfm"
OPTIONS = {"release": "1k", "negatives": 3}
COUNTRIES = ("Germany", "", "Mexico")


def write_raw(folder: Path, world: World) -> None:
    """1K: every listen twice, newest first; every third artist without a MusicBrainz number."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {item.key: name_of(item) for item in world.items}
    rows = []
    for user in sorted({event.user for event in world.events}):
        own = [event for event in world.events if event.user == user]
        listens = [(when, e) for e in own for when in (e.time, e.time + 1)]
        for when, event in sorted(listens, key=lambda listen: -listen[0]):
            at = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            name = names.get(event.item, "")
            number = mbid(event.item) if name else ""
            rows.append((user, at, number, name, "", f"Song {when % 2} of {name}"))
    _write(folder / "userid-timestamp-artid-artname-traid-traname.tsv", rows)
    header = ("#id", "gender", "age", "country", "registered")
    _write(folder / "userid-profile.tsv", [header, *_profiles(world, "Feb 1, 2007")])


def write_2k(folder: Path, world: World) -> None:
    """hetrec-2k: artists.dat, tags.dat (Latin-1 in part), user_artists.dat, tag assignments."""
    folder.mkdir(parents=True, exist_ok=True)
    artists = [
        (i.key, name_of(i), f"http://www.last.fm/music/{i.key}", "http://x.jpg")
        for i in world.items
    ]
    _write(folder / "artists.dat", [("id", "name", "url", "pictureURL"), *artists])
    tags = sorted({tag for item in world.items for tag in item.tags})
    lines = [f"{number}\t{tag}".encode() for number, tag in enumerate(tags)]
    lines.append("99\tfußball".encode("latin-1"))
    (folder / "tags.dat").write_bytes(b"".join(f + b"\r\n" for f in [b"tagID\ttagValue", *lines]))
    plays = [(e.user, e.item, plays_of(e)) for e in _by_user(world)]
    _write(folder / "user_artists.dat", [("userID", "artistID", "weight"), *plays], "\r\n")
    given = [
        (user, item.key, tags.index(tag), 1, 4, 2009)
        for item in world.items
        for user in ("101", "102")
        for tag in item.tags[: 1 if user == "102" else 2]
    ]
    header = ("userID", "artistID", "tagID", "day", "month", "year")
    _write(folder / "user_taggedartists.dat", [header, *given, ("103", "1001", 99, 1, 4, 2009)])


def write_360k(folder: Path, world: World) -> None:
    """360K: plays by artist, and users' profiles."""
    folder.mkdir(parents=True, exist_ok=True)
    artists = {item.key: (mbid(item.key), name_of(item)) for item in world.items}
    rows = [(e.user, *artists.get(e.item, ("", "")), plays_of(e)) for e in _by_user(world)]
    _write(folder / "usersha1-artmbid-artname-plays.tsv", rows)
    _write(folder / "usersha1-profile.tsv", _profiles(world, "Feb 1, 2007"))


def write_1b(folder: Path, world: World) -> None:
    """LFM-1b: listens by numbers, artists, tracks, users."""
    folder.mkdir(parents=True, exist_ok=True)
    events = _by_user(world)
    _write(folder / "LFM-1b_LEs.txt", [(e.user, e.item, 7, f"00{e.item}", e.time) for e in events])
    _write(folder / "LFM-1b_artists.txt", [(i.key, name_of(i)) for i in world.items])
    tracks = [(f"00{i.key}", f"Song of {name_of(i)}", i.key) for i in world.items]
    _write(folder / "LFM-1b_tracks.txt", tracks)
    users = [
        (user, country[:2].upper(), age or -1, gender or "n", 12345, 1179416027)
        for user, gender, age, country, _ in _profiles(world, "")
    ]
    header = ("user_id", "country", "age", "gender", "playcount", "registered_unixtime")
    _write(folder / "LFM-1b_users.txt", [header, *users])


RELEASES = {
    "hetrec-2k": (write_2k, OPTIONS | {"release": "hetrec-2k"}),
    "360k": (write_360k, OPTIONS | {"release": "360k"}),
    "1b": (write_1b, OPTIONS | {"release": "1b"}),
    "1b tracks": (write_1b, OPTIONS | {"release": "1b", "item": "track"}),
}


def mbid(key: str) -> str:
    """A MusicBrainz number, with the world's at its end; not all artists have one."""
    return "" if int(key) % 3 == 0 else f"a3cb23fc-acd3-4ce0-8f36-1e5aa6a1-{key}"


def name_of(item: Item) -> str:
    """An artist's name, with the world's number at its end."""
    return f"{item.title} {item.key}"


def plays_of(event: Event) -> int:
    return event.value * 100


def _by_user(world: World) -> list[Event]:
    return sorted(world.events, key=lambda event: event.user)


def _profiles(world: World, signup: str) -> list[tuple[str, str, str, str, str]]:
    users = sorted({event.user for event in world.events})
    ages = ("", "22", "-1337", "31")
    return [
        (user, ("m", "f", "")[n % 3], ages[n % 4], COUNTRIES[n % 3], signup)
        for n, user in enumerate(users)
    ]


def _write(path: Path, rows: Iterable[tuple[object, ...]], end: str = "\n") -> None:
    text = "".join("\t".join(map(str, row)) + end for row in rows)
    path.write_text(text, encoding="utf-8", newline="")
