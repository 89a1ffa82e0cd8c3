"""How many tokens texts have, where some model has had them tokenized before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from legoray.data.inspecting.result import TokenFacts
from legoray.data.inspecting.tally import Tally
from legoray.data.schema import Manifest
from legoray.errors import DamagedError, Problem


def tokens_of(tables: Path, manifest: Manifest, attribute: str) -> list[TokenFacts]:
    """Token counts of an attribute of items, for each tokenizer and length that it was read with.

    Raises:
        DamagedError: a file of tokens is damaged.
    """
    texts = manifest.prints([attribute]).get(attribute, "")
    found = []
    for file in sorted((tables / "tokens").glob("*/tokens.safetensors")):
        try:
            with safe_open(file, framework="numpy") as opened:
                note = opened.metadata() or {}
                if (note.get("attribute"), note.get("texts")) != (attribute, texts):
                    continue
                offsets = opened.get_tensor("offsets")
        except (SafetensorError, OSError) as error:
            hint = f"delete the folder {file.parent}; it is made again when it is needed"
            raise DamagedError(Problem(str(file), f"is damaged: {error}", hint)) from None
        tally = Tally()
        tally.add(np.diff(offsets)[1:])  # the first item is padding
        made = TokenFacts(
            tokenizer=note["tokenizer"], length=int(note["length"]), tokens=tally.distribution()
        )
        found.append(made)
    return sorted(found, key=lambda one: (one.tokenizer, one.length))
