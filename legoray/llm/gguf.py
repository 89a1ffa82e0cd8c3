"""Language models that come as one GGUF file: dequantized once, kept as safetensors beside a cache.

The copy lies in $LEGORAY_MODELS, or below the user's cache folder, on each node: it does not depend
on the current folder, which Ray's workers change. Its name is a hash of the GGUF file, so that
another file never meets an older copy. Weights in float32, as they were before they were quantized
but for what the quantization lost.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import shutil
from pathlib import Path

from filelock import FileLock

from legoray.errors import InputError, Problem
from legoray.records import SHARED

CONVERSION = 1  # goes up when the same file would give another copy
ENDING = ".gguf"


def converted(file: Path) -> Path:
    """The folder with the dequantized weights and the tokenizer of a GGUF file, made if need be.

    Raises:
        InputError: there is no such file, it is damaged or of a kind that transformers cannot read,
            or the copy cannot be written.
    """
    try:
        state = file.stat()
    except OSError as error:
        raise InputError(Problem(str(file), f"cannot be read: {error.strerror}")) from None
    folder = models_folder() / _key(file, state.st_size, state.st_mtime_ns)
    try:
        if not (folder / "config.json").exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.parent / f".{folder.name}.lock"):
                if not (folder / "config.json").exists():
                    _convert(file, folder)
    except OSError as error:
        raise InputError(
            Problem(
                str(folder),
                f"cannot be written: {error.strerror or error}",
                "LEGORAY_MODELS names the folder of converted models",
            )
        ) from None
    return folder


def models_folder() -> Path:
    """Where converted models lie: $LEGORAY_MODELS, or `legoray/models` in the cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    given = os.environ.get("LEGORAY_MODELS") or f"{cache}/legoray/models"
    return Path(given).expanduser().absolute()


@functools.lru_cache(maxsize=16)
def _key(file: Path, size: int, time: int) -> str:
    with file.open("rb") as opened:
        content = hashlib.file_digest(opened, "sha256").hexdigest()
    return f"{file.stem}-{content[:16]}-{CONVERSION}"


def _convert(file: Path, folder: Path) -> None:
    """Write the copy under another name, then move it into place."""
    from legoray.llm.load import quiet, quiet_libraries

    quiet_libraries()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    working = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(working, ignore_errors=True)
    try:
        # the library draws a bar of its progress, whatever it is told
        silent = contextlib.redirect_stderr(io.StringIO())
        with torch.random.fork_rng(devices=[]), quiet(), silent:
            model = AutoModelForCausalLM.from_pretrained(
                file.parent,
                gguf_file=file.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
                trust_remote_code=False,
            )
            model.save_pretrained(working)
            tokenizer = AutoTokenizer.from_pretrained(
                file.parent, gguf_file=file.name, trust_remote_code=False
            )
            tokenizer.save_pretrained(working)
    except (ImportError, ValueError, KeyError, RuntimeError, IndexError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        message = f"cannot be read as a GGUF language model: {lines[0] if lines else error!r}"
        raise InputError(
            Problem(str(file), message, "pip install gguf, if it is missing")
        ) from None
    else:
        for path in working.iterdir():
            path.chmod(SHARED)
        os.replace(working, folder)
    finally:
        shutil.rmtree(working, ignore_errors=True)
