"""Weights in another precision than their file's, kept on the node: converted once, mapped by all.

Quantizing takes seconds to minutes, and every process would hold a copy of its own. So the first
process of a node writes the result as safetensors beside the converted GGUF files, and each process
maps that file: its pages are in memory once, however many processes read them. Weights that are in
the wanted precision already are mapped where they lie, and float32 is never copied. On a GPU each
process needs its own copy on the device, whatever the file; the quantization alone is saved there.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path

from legoray.data.built import ensure_folder
from legoray.llm.catalogue import Source, weight_files
from legoray.llm.gguf import models_folder
from legoray.llm.precision import QUANTIZED, Precision, device_of_bases
from legoray.records import digest

VERSION = 1  # goes up when the same weights would give another copy


def needs_copy(source: Source, precision: Precision) -> bool:
    """Whether the weights' own files cannot be mapped in this precision."""
    return precision in QUANTIZED or (precision == "bfloat16" and not _holds(source, "BF16"))


def node_copy(
    source: Source, precision: Precision, checksum: str, convert: Callable[[Path], None]
) -> Path:
    """The folder with a model's weights in some precision, made if need be.

    Its name is a hash of all that decides its content. One process makes it, the others wait; it is
    there whole or not at all.

    Args:
        source: the model.
        precision: which `needs_copy`.
        checksum: of the model's weights and configuration.
        convert: writes the converted model into a folder, as safetensors and `config.json`.

    Raises:
        DamagedError: the copy was damaged since it was made.
        InputError: it cannot be written; or what `convert` raises.
    """
    folder = models_folder() / _name(source, precision, checksum)
    what = f"weights in {precision}"
    ensure_folder(folder, convert, what, setting="LEGORAY_MODELS")
    return folder


def _name(source: Source, precision: Precision, checksum: str) -> str:
    quantized = precision in QUANTIZED
    libraries = ("transformers", "bitsandbytes") if quantized else ("transformers",)
    decides = {
        "version": VERSION,
        "weights": checksum,
        "precision": precision,
        "device": device_of_bases().type if quantized else "any",  # kernels round differently
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
    }
    readable = re.sub(r"[^\w.-]+", "-", Path(source.id).name).strip(".-")[:60]
    return f"{readable}-{precision}-{digest(decides, 16)}"


def _holds(source: Source, kind: str) -> bool:
    """Whether a file of the weights has tensors of a safetensors type."""
    from safetensors import SafetensorError, safe_open

    for path in weight_files(source.folder):
        try:
            with safe_open(path, framework="pt") as file:
                if any(file.get_slice(name).get_dtype() == kind for name in file.keys()):  # noqa: SIM118
                    return True
        except (SafetensorError, OSError):
            return False  # damaged: whoever reads it next says so
    return False
