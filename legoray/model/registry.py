"""Which parts there are: one explicit table per kind, name -> where its class stands.

The classes are imported when they are asked for, so that naming a part costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal, get_args

from legoray.config import Keys, build
from legoray.errors import InputError, Problem, nearest, unknown
from legoray.model.base import BehaviorOperator, ClickPredictor, ContentOperator, PartConfig
from legoray.yamlfile import Document, dotted

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
_BASES: dict[str, type] = {
    "content": ContentOperator,
    "behavior": BehaviorOperator,
    "predictor": ClickPredictor,
}


def part_class(kind: str, name: str, where: str = "") -> type[Any]:
    """The class of a part by its name in the table, or by an import path `package.module:Class`.

    Raises:
        InputError: there is no such part; the hint has the nearest name.
    """
    check_name(kind, name, where)
    return _own_class(kind, name, where) if ":" in name else _import(TABLES[kind][name])


def check_name(kind: str, name: str, where: str = "") -> None:
    """Refuse a name that is neither in the kind's table nor an import path; imports nothing.

    Raises:
        InputError: there is no such part; the hint has the nearest name.
    """
    if ":" not in name and name not in TABLES[kind]:
        raise InputError(unknown(_described(kind), name, list(TABLES[kind]), where))


def parse_part(
    kind: str,
    settings: dict[str, Any],
    where: str = "",
    *,
    document: Document | None = None,
    at: Keys = (),
) -> tuple[type[Any], PartConfig]:
    """The class and the checked settings of `{name: <part>, ...its own settings}`.

    Args:
        kind: `content`, `behavior` or `predictor`.
        settings: as it stands in the YAML.
        where: what to call the place in errors; by default what `document` says about `at`.
        document: the file that `settings` come from.
        at: their path of keys in it.

    Raises:
        InputError: an unknown part, an unknown setting, a wrong value; all of them at once.
    """
    spot = where or (document.where(at) if document else dotted(at) or kind)
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        options = ", ".join(sorted(TABLES[kind]))
        raise InputError(
            Problem(spot, f"the {_described(kind)} needs a name", f"name: one of {options}")
        )
    part = part_class(kind, settings["name"], spot)
    own = {key: value for key, value in settings.items() if key != "name"}
    try:
        return part, build(part.Config, own, document, at)
    except InputError as error:
        raise InputError(
            *(_placed(p, spot, bool(document or at)) for p in error.problems)
        ) from None


def _placed(problem: Problem, spot: str, has_path: bool) -> Problem:
    """A setting's problem with the part's place before it, unless it has its own already."""
    if has_path:
        return problem
    where = f"{spot}.{problem.where}" if problem.where else spot
    return Problem(where, problem.message, problem.hint)


def _described(kind: str) -> str:
    return "click predictor" if kind == "predictor" else f"{kind} operator"


def _import(path: str) -> type[Any]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _own_class(kind: str, path: str, where: str) -> type[Any]:
    """A part that stands outside of the tables."""
    try:
        found = _import(path)
    except (ImportError, AttributeError, ValueError) as error:
        close = nearest(path, TABLES[kind])
        hint = f"did you mean '{close}'?" if close else "expected package.module:Class"
        raise InputError(Problem(where, f"'{path}' cannot be imported: {error}", hint)) from None
    base = _BASES[kind]
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(
            Problem(where, f"'{path}' is no {_described(kind)}", f"derive it from {base.__name__}")
        )
    return found
