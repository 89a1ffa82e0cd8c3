"""What was trained of a language model, as folders that other programs read.

Adapters become a PEFT folder, to be put on the same model; merged into its float32 weights they
become a plain Hugging Face folder. Both have the head beside them: `head.safetensors` (the
projection, and the attention of `pooling: attention`) and `head.json`, which says how texts are
made, cut and pooled before it.

Adapters are never merged into quantized weights, which would round them away. A model that was
trained on such weights gives slightly other vectors on the float32 ones.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from legoray.errors import InputError, Problem
from legoray.llm.catalogue import TOKENIZER_FILES, Source, locate, weights_checksum
from legoray.llm.load import facts, load_base, quiet, quiet_libraries
from legoray.llm.lora import LoraSettings
from legoray.llm.split import layer_path
from legoray.records import SHARED

FORMAT = 1
_HEADS = ("project.", "pool.")


@dataclass(frozen=True)
class Trained:
    """What was trained of one language model.

    `state` is what an `llm` operator saves: `layer.<n>.<...>` are adapters, `model.<...>` the whole
    model's own weights, `project.` and `pool.` the head. `about` is kept in `head.json`.
    """

    model: str  # catalogue name, folder or hub id
    lora: LoraSettings | None
    state: dict[str, Tensor]
    about: dict[str, Any]

    @property
    def adapters(self) -> dict[str, Tensor]:
        """The adapters alone; empty where there are none."""
        return {name: tensor for name, tensor in self.state.items() if name.startswith("layer.")}

    @property
    def weights(self) -> dict[str, Tensor]:
        """The language model's own weights that were trained, by its names for them."""
        own = {k: v for k, v in self.state.items() if k.startswith("model.")}
        return {name.removeprefix("model."): tensor for name, tensor in own.items()}


def check_target(folder: Path) -> None:
    """Whether a folder may be written.

    Raises:
        InputError: something stands there already.
    """
    try:
        taken = folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    except OSError as error:
        raise InputError(Problem(str(folder), f"cannot be read: {error.strerror}")) from None
    if taken:
        raise InputError(Problem(str(folder), "is there already", "choose a folder that is not"))


def export_adapters(trained: Trained, folder: Path) -> None:
    """Write the adapters as `peft.PeftModel.from_pretrained` reads them, and the head.

    Raises:
        InputError: there are no adapters, something stands at `folder`, or it cannot be written.
    """
    if not trained.adapters:
        what = "its upper layers were trained whole" if trained.weights else "only its head was"
        raise InputError(
            Problem(trained.model, f"has no adapters: {what}", "--merge writes the whole model")
        )
    _write(folder, lambda place: _adapter_files(trained, place), trained, merged=False)


def export_merged(trained: Trained, folder: Path) -> None:
    """Write the language model in float32 with all that was trained in it, and the head.

    `transformers.AutoModel` loads it, and so does LegoRay by `model: <folder>`.

    Raises:
        InputError: as `export_adapters`, adapters aside; or the language model is not here.
    """

    def files(place: Path) -> None:
        merged: Any = _merged(trained, place)
        merged.save_pretrained(place)
        source = locate(trained.model)
        for name in TOKENIZER_FILES:
            if (source.folder / name).is_file():
                shutil.copyfile(source.folder / name, place / name)

    _write(folder, files, trained, merged=True)


def _write(folder: Path, files: Callable[[Path], None], trained: Trained, *, merged: bool) -> None:
    source = locate(trained.model)
    about = {
        "format": FORMAT,
        "model": source.id,
        "revision": source.revision,
        "weights": weights_checksum(source),
        "licence": source.licence,
        "merged": merged,
        **trained.about,
    }
    head = {k: v.contiguous() for k, v in trained.state.items() if k.startswith(_HEADS)}
    with _new(folder) as place, quiet():
        quiet_libraries()
        files(place)
        save_file(head, place / "head.safetensors")
        (place / "head.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A folder under another name that takes its own when it is whole."""
    check_target(folder)
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.new-"))
        yield temporary
        temporary.chmod(0o755)
        for file in temporary.iterdir():
            file.chmod(SHARED)
        temporary.rename(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(Problem(str(folder), f"cannot be written: {reason}")) from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _adapter_files(trained: Trained, folder: Path) -> None:
    """`adapter_config.json` and `adapter_model.safetensors`, with every adapted module's name."""
    from peft import LoraConfig

    source, settings = locate(trained.model), trained.lora
    assert settings is not None
    whole = _skeleton(source)
    layers = ".".join(layer_path(whole, facts(trained.model).layers))
    named = {
        f"{layers}.{name.removeprefix('layer.')}": tensor.contiguous()
        for name, tensor in trained.adapters.items()
    }
    modules = sorted({name.partition(".lora_")[0] for name in named})
    config = LoraConfig(
        task_type="FEATURE_EXTRACTION",
        inference_mode=True,
        base_model_name_or_path=source.id,
        revision=source.revision or None,
        target_modules=modules,
        fan_in_fan_out=type(whole.get_submodule(modules[0])).__name__ == "Conv1D",
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        use_dora=settings.dora,
        use_rslora=settings.rslora,
    )
    config.save_pretrained(str(folder))
    save_file(
        {f"base_model.model.{name}": tensor for name, tensor in named.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )


def _skeleton(source: Source) -> nn.Module:
    """The model without its weights, for the names of its modules."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model: nn.Module = AutoModel.from_config(config, trust_remote_code=False)
    return model


def _merged(trained: Trained, folder: Path) -> nn.Module:
    """The language model in float32 on the CPU, with what was trained in its weights."""
    from peft import PeftModel

    model: Any = copy.deepcopy(load_base(trained.model, "float32").model).cpu()
    if trained.weights:
        with torch.no_grad():
            for name, tensor in trained.weights.items():
                model.get_parameter(name).copy_(tensor)
    if not trained.adapters:
        return model
    with tempfile.TemporaryDirectory(dir=folder) as adapters:
        _adapter_files(trained, Path(adapters))
        carrier: Any = PeftModel.from_pretrained(model, adapters)
        merged: nn.Module = carrier.merge_and_unload(safe_merge=True)
    return merged
