"""Which parts there are: one explicit table per kind, name -> where its class stands.

`declared` reads what the parts say of themselves out of their source, so that listing them imports
neither them nor torch.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

Kind = Literal["content", "behavior", "predictor"]
KINDS: tuple[Kind, ...] = get_args(Kind)

CONTENT: dict[str, str] = {
    "id": "legoray.model.content.id:IdOperator",
    "vector": "legoray.model.content.vector:VectorOperator",
    "pooling": "legoray.model.content.pooling:PoolingOperator",
    "weighted-pooling": "legoray.model.content.weighted_pooling:WeightedPoolingOperator",
    "cnn": "legoray.model.content.cnn:CnnOperator",
    "cnn-concat": "legoray.model.content.cnn_concat:CnnConcatOperator",
    "multi-kernel-cnn": "legoray.model.content.multi_kernel_cnn:MultiKernelCnnOperator",
    "attention": "legoray.model.content.attention:AttentionOperator",
    "additive": "legoray.model.content.additive:AdditiveOperator",
    "views": "legoray.model.content.views:ViewsOperator",
    "gru": "legoray.model.content.gru:GruOperator",
    "transformer": "legoray.model.content.transformer:TransformerOperator",
    "fastformer": "legoray.model.content.fastformer:FastformerOperator",
    "llm": "legoray.model.content.llm:LlmOperator",
    "iisan": "legoray.model.content.iisan:IisanOperator",
    "semantic-id": "legoray.model.content.semantic_id:SemanticIdOperator",
    "hybrid": "legoray.model.content.hybrid:HybridOperator",
}
BEHAVIOR: dict[str, str] = {
    "none": "legoray.model.behavior.none:NoneOperator",
    "pooling": "legoray.model.behavior.pooling:PoolingOperator",
    "additive": "legoray.model.behavior.additive:AdditiveOperator",
    "attention": "legoray.model.behavior.attention:AttentionOperator",
    "gru": "legoray.model.behavior.gru:GruOperator",
    "lstur": "legoray.model.behavior.lstur:LsturOperator",
    "transformer": "legoray.model.behavior.transformer:TransformerOperator",
    "causal-transformer": "legoray.model.behavior.causal_transformer:CausalTransformerOperator",
    "fastformer": "legoray.model.behavior.fastformer:FastformerOperator",
    "poly-attention": "legoray.model.behavior.poly_attention:PolyAttentionOperator",
    "candidate-attention": "legoray.model.behavior.candidate_attention:CandidateAttentionOperator",
    "cnn": "legoray.model.behavior.cnn:CnnOperator",
    "personalised": "legoray.model.behavior.personalised:PersonalisedOperator",
    "flatten-transformer": "legoray.model.behavior.flatten_transformer:FlattenTransformerOperator",
    "flatten-fastformer": "legoray.model.behavior.flatten_fastformer:FlattenFastformerOperator",
}
PREDICTOR: dict[str, str] = {
    "dot": "legoray.model.predictor.dot:DotPredictor",
    "cosine": "legoray.model.predictor.cosine:CosinePredictor",
    "bilinear": "legoray.model.predictor.bilinear:BilinearPredictor",
    "dnn": "legoray.model.predictor.dnn:DnnPredictor",
    "wide-deep": "legoray.model.predictor.wide_deep:WideDeepPredictor",
    "fm": "legoray.model.predictor.fm:FmPredictor",
    "deepfm": "legoray.model.predictor.deepfm:DeepFmPredictor",
    "pnn": "legoray.model.predictor.pnn:PnnPredictor",
    "dcn": "legoray.model.predictor.dcn:DcnPredictor",
    "dcnv2": "legoray.model.predictor.dcnv2:DcnV2Predictor",
    "xdeepfm": "legoray.model.predictor.xdeepfm:XDeepFmPredictor",
    "autoint": "legoray.model.predictor.autoint:AutoIntPredictor",
    "din": "legoray.model.predictor.din:DinPredictor",
    "masknet": "legoray.model.predictor.masknet:MaskNetPredictor",
    "gdcn": "legoray.model.predictor.gdcn:GdcnPredictor",
    "finalmlp": "legoray.model.predictor.finalmlp:FinalMlpPredictor",
    "miner": "legoray.model.predictor.miner:MinerPredictor",
}

TABLES: dict[str, dict[str, str]] = {
    "content": CONTENT,
    "behavior": BEHAVIOR,
    "predictor": PREDICTOR,
}


@dataclass(frozen=True)
class Declared:
    """What a part says of itself."""

    name: str
    summary: str
    paper: str
    states: frozenset[str]  # the user states that it produces or accepts; of content, none


@functools.cache
def declared(kind: str) -> tuple[Declared, ...]:
    """The parts of a kind, in the table's order."""
    return tuple(_read(name, path) for name, path in TABLES[kind].items())


def count_compositions() -> int:
    """How many compositions of the tables are valid."""
    pairs = sum(
        bool(behavior.states & predictor.states)
        for behavior in declared("behavior")
        for predictor in declared("predictor")
    )
    return len(CONTENT) * pairs


_READS = {
    "vector": "one vector per user",
    "interests": "several vectors per user",
    "sequence": "the history item by item",
}


def misfit(
    behavior: str, produces: str, predictor: str, accepts: frozenset[str]
) -> tuple[str, str] | None:
    """Why a behavior operator does not feed a click predictor, and what fits; None where it does.

    Args:
        behavior: its name.
        produces: the user state that it gives.
        predictor: its name.
        accepts: the user states that it reads.
    """
    if produces in accepts:
        return None
    wanted = " or ".join(_READS[kind] for kind in sorted(accepts))
    predictors = [part.name for part in declared("predictor") if produces in part.states]
    behaviors = [part.name for part in declared("behavior") if part.states & accepts]
    hint = f"'{behavior}' goes with: {', '.join(predictors) or 'no predictor here'}"
    hint += f"; '{predictor}' goes with: {', '.join(behaviors) or 'no behavior operator here'}"
    given = _READS[produces]
    return f"predictor '{predictor}' reads {wanted}, but behavior '{behavior}' gives {given}", hint


def _read(name: str, path: str) -> Declared:
    module, _, wanted = path.partition(":")
    file = Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == wanted)
    values = {
        node.target.id: _value(node.value)
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    states = values.get("produces") or values.get("accepts") or ()
    return Declared(
        name=name,
        summary=(ast.get_docstring(found) or "").partition("\n")[0],
        paper=str(values.get("paper") or ""),
        states=frozenset([states] if isinstance(states, str) else states),
    )


def _value(node: ast.expr | None) -> Any:
    """A literal, or the literal that a `frozenset(...)` is made of; None for anything else."""
    inner = node.args[0] if isinstance(node, ast.Call) and node.args else node
    try:
        return None if inner is None else ast.literal_eval(inner)
    except ValueError:
        return None
