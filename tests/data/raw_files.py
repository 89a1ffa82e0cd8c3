"""Raw files for the tests of preparation, and the YAML that points at them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from legoray.data.prepare import Prepared, prepare

ROOT = Path(__file__).resolve().parents[2]


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def dataset(folder: Path, processor: str, raw: str = "raw", **keys: object) -> Path:
    """A dataset YAML (JSON is YAML) in `folder`."""
    content = {"name": "tiny", "path": raw, "processor": processor, "get": "Ask the owner.", **keys}
    return write(folder / "tiny.yaml", json.dumps(content, indent=1))


def prepared(folder: Path, processor: str, **keys: object) -> Prepared:
    return prepare(dataset(folder, processor, **keys), say=lambda line: None)


def news(*ids: str, title: str = 'A "bare quote in {0}') -> str:
    row = "{0}\tnews\tworld\t" + title + "\t\thttps://x/{0}\t[]\t[]\n"
    return "".join(row.format(key) for key in ids)


def random_mind(raw: Path, seed: int, *, items: int = 60, users: int = 25, rows: int = 200) -> None:
    """MIND's format with all its quirks at random: unknown news, empty and repeating histories."""
    random = np.random.default_rng(seed)
    for part, first in (("train", 0), ("dev", items // 3)):
        keys = [f"N{number}" for number in range(first, first + items)]
        write(raw / part / "news.tsv", news(*keys))
        lines = []
        for row in range(rows):
            size = int(random.integers(0, 9))
            history = " ".join(random.choice([*keys, "N9999"], size))
            shown = random.choice([*keys, "N8888"], int(random.integers(1, 12)), replace=False)
            labels = random.random(len(shown)) < 0.3
            candidates = " ".join(f"{k}-{int(v)}" for k, v in zip(shown, labels, strict=True))
            when = f"11/{random.integers(9, 15)}/2019 {random.integers(1, 13)}:"
            when += (
                f"{random.integers(60):02d}:{random.integers(60):02d} {random.choice(['AM', 'PM'])}"
            )
            lines.append(f"{row + 1}\tU{random.integers(users)}\t{when}\t{history}\t{candidates}\n")
        write(raw / part / "behaviors.tsv", "".join(lines))
