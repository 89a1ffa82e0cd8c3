"""The larger half of the click predictors, each against loops from its paper's equation."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest
import torch
from model_cases import HIDDEN, cases, perturb, small_shape, user_state
from sklearn.metrics.pairwise import cosine_similarity
from torch.nn import functional as F

from legoray.model.base import Shape, UserState
from legoray.model.registry import parse_part

FIELDS = ("item.category", "time.hour", "user.region")
WITH_FIELDS = pytest.mark.parametrize("sizes", [(), (4, 3)], ids=["no fields", "two fields"])
MINE = [
    *("cosine", "bilinear", "wide-deep", "fm", "deepfm", "pnn", "dcnv2"),
    *("xdeepfm", "autoint", "masknet", "gdcn", "finalmlp", "miner"),
]


def make(name, sizes=(), **settings):
    """A predictor with weights that are nothing special; `sizes` are its fields' values."""
    if sizes:
        settings["fields"] = list(FIELDS[: len(sizes)])
    part, config = parse_part("predictor", {"name": name, **settings})
    return perturb(part(config, small_shape(fields=sizes))).eval()


def values_of(sizes):
    """`[4, 3, F]`: all values of each field, absent ones (0) included."""
    if not sizes:
        return None
    return torch.stack([torch.arange(12).view(4, 3) % size for size in sizes], dim=-1)


def check(predictor, sizes, reference, user=None):
    """`reference(vectors, values)` sees one pair: [u, c, field vectors...] and field values."""
    user = user or user_state("vector")
    candidates = torch.randn(4, 3, HIDDEN)
    fields = values_of(sizes)
    expected = torch.zeros(4, 3)
    for b in range(4):
        for k in range(3):
            values = [] if fields is None else fields[b, k].tolist()
            vectors = [user.values[b], candidates[b, k]]
            vectors += [predictor.stack.tables[f].weight[value] for f, value in enumerate(values)]
            expected[b, k] = reference(vectors, values)
    found = predictor(user, candidates, fields)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


def by_hand(mlp, values):
    """An MLP's linear layers, with a ReLU after all but a last one that has none."""
    linear = [layer for layer in mlp.layers if isinstance(layer, torch.nn.Linear)]
    for layer in linear:
        values = layer.weight @ values + (0 if layer.bias is None else layer.bias)
        values = values if mlp.layers[-1] is layer else values.clamp(min=0)
    return values


def linear_terms(linear, vectors, values):
    """`w_0 + sum_i w_i x_i` one after another."""
    raw = [*vectors[0], *vectors[1]]
    total = linear.dense.bias[0] + sum(w * x for w, x in zip(linear.dense.weight[0], raw))  # noqa: B905
    return total + sum(linear.tables[f].weight[v, 0] for f, v in enumerate(values))


def pairs(vectors):
    """The double loop over i < j."""
    total = torch.tensor(0.0)
    for i in range(len(vectors)):
        for j in range(i + 1, len(vectors)):
            total = total + sum(a * b for a, b in zip(vectors[i], vectors[j], strict=True))
    return total


def count(name, sizes=(), **settings):
    """Trained parameters besides the fields' own tables."""
    predictor = make(name, sizes, **settings)
    tables = sum(size * HIDDEN for size in sizes)
    return sum(p.numel() for p in predictor.parameters() if p.requires_grad) - tables


def mlp_count(*sizes, last_bias=True):
    """Weights and biases of linear layers from each of these sizes to the next."""
    total = sum(before * after + after for before, after in pairwise(sizes))
    return total - (0 if last_bias else sizes[-1])


# --- two vectors


@pytest.mark.parametrize("learned", [False, True])
def test_cosine_as_scikit_learn_has_it(learned):
    predictor = make("cosine", temperature=0.2, learned=learned)
    temperature = predictor.log_temperature.exp().item() if learned else 0.2
    user, candidates = user_state("vector"), torch.randn(4, 3, HIDDEN)
    user.values[1] = 0  # without a history
    candidates[2, 1] = 0
    for b in range(4):
        cosines = cosine_similarity(user.values[b : b + 1].numpy(), candidates[b].numpy())[0]
        expected = torch.tensor(cosines) / temperature
        torch.testing.assert_close(predictor(user, candidates)[b].detach(), expected)


def test_cosine_starts_from_its_temperature_and_moves_only_if_asked():
    part, config = parse_part("predictor", {"name": "cosine", "temperature": 0.3, "learned": True})
    assert part(config, small_shape()).log_temperature.exp().item() == pytest.approx(0.3)
    assert (count("cosine"), count("cosine", learned=True)) == (0, 1)


def test_cosine_has_a_gradient_of_ordinary_size_at_zero():
    user = torch.zeros(1, HIDDEN, requires_grad=True)
    candidates = torch.zeros(1, 2, HIDDEN, requires_grad=True)
    with torch.no_grad():
        candidates[0, 0] = torch.randn(HIDDEN)
    make("cosine")(UserState("vector", user), candidates).sum().backward()
    for gradient in (user.grad, candidates.grad):
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 100


def test_bilinear():
    predictor = make("bilinear")
    matrix = predictor.matrix.weight.T
    user, candidates = user_state("vector"), torch.randn(4, 3, HIDDEN)
    repeated = user.values[:, None].expand(4, 3, HIDDEN).contiguous()
    expected = F.bilinear(repeated, candidates, matrix.contiguous()[None]).squeeze(-1)
    torch.testing.assert_close(predictor(user, candidates), expected)
    assert count("bilinear") == HIDDEN**2


@pytest.mark.parametrize("how", ["max", "mean", "weighted"])
def test_miner(how):
    predictor = make("miner", how=how)
    user, candidates = user_state("interests"), torch.randn(4, 3, HIDDEN)
    expected = torch.zeros(4, 3)
    for b in range(4):
        for k in range(3):
            matches = torch.stack([interest @ candidates[b, k] for interest in user.values[b]])
            if how == "weighted":
                projected = (predictor.query.weight @ candidates[b, k]).detach()
                query = torch.stack([x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in projected])
                powers = [math.exp(float(interest @ query)) for interest in user.values[b]]
                shares = [power / sum(powers) for power in powers]
                expected[b, k] = sum(a * m for a, m in zip(shares, matches, strict=True))
            else:
                expected[b, k] = matches.max() if how == "max" else matches.sum() / 3
    torch.testing.assert_close(predictor(user, candidates), expected)
    assert count("miner", how=how) == (HIDDEN**2 if how == "weighted" else 0)


# --- factorization machines


@WITH_FIELDS
def test_fm_is_the_sum_over_pairs(sizes):
    predictor = make("fm", sizes)
    check(predictor, sizes, lambda v, x: linear_terms(predictor.linear, v, x) + pairs(v))
    assert count("fm", sizes) == 1 + 2 * HIDDEN + sum(sizes)


@WITH_FIELDS
def test_deepfm(sizes):
    predictor = make("deepfm", sizes, units=[10, 6])

    def reference(vectors, values):
        wide = linear_terms(predictor.linear, vectors, values) + pairs(vectors)
        return wide + by_hand(predictor.deep, torch.cat(vectors))[0]

    check(predictor, sizes, reference)
    width = (2 + len(sizes)) * HIDDEN
    machine = 1 + 2 * HIDDEN + sum(sizes)
    assert count("deepfm", sizes, units=[10, 6]) == machine + mlp_count(
        width, 10, 6, 1, last_bias=False
    )


@pytest.mark.parametrize("maps", [[5], [4, 3, 2]])
@WITH_FIELDS
def test_xdeepfm_by_the_triple_loop(sizes, maps):
    predictor = make("xdeepfm", sizes, units=[10], maps=maps)

    def interactions(first):
        last, pooled = first, []
        for layer, width in zip(predictor.cin.layers, maps, strict=True):
            following = []
            for h in range(width):
                weights = layer.weight[h].view(len(last), len(first))
                made = torch.zeros(HIDDEN)
                for i in range(len(last)):
                    for j in range(len(first)):
                        made = made + weights[i, j] * last[i] * first[j]
                following.append(made)
            pooled += [made.sum() for made in following]
            last = following
        return torch.stack(pooled)

    def reference(vectors, values):
        deep = by_hand(predictor.deep, torch.cat(vectors))
        joined = torch.cat([deep, interactions(vectors)])
        linear = linear_terms(predictor.linear, vectors, values)
        return linear + predictor.output.weight[0] @ joined

    check(predictor, sizes, reference)
    fields = 2 + len(sizes)
    cin = sum(a * b * fields for a, b in zip([fields, *maps], maps, strict=False))
    assert count("xdeepfm", sizes, units=[10], maps=maps) == (
        1 + 2 * HIDDEN + sum(sizes) + cin + mlp_count(fields * HIDDEN, 10) + 10 + sum(maps)
    )


# --- wide and deep


@pytest.mark.parametrize("sizes", [(), (4, 3), (4, 3, 5)])
def test_wide_deep(sizes):
    predictor = make("wide-deep", sizes, units=[10])
    tables = dict(zip(combinations(range(len(sizes)), 2), predictor.pairs, strict=True))

    def reference(vectors, values):
        total = linear_terms(predictor.linear, vectors, values)
        for d in range(HIDDEN):
            total = total + predictor.cross.weight[0, d] * vectors[0][d] * vectors[1][d]
        for (i, j), pair in tables.items():
            both = [(a, b) for a in range(1, sizes[i]) for b in range(1, sizes[j])]
            here = (values[i], values[j])
            row = both.index(here) + 1 if here in both else 0
            total = total + pair.table.weight[row, 0]
        return total + by_hand(predictor.deep, torch.cat(vectors))[0]

    check(predictor, sizes, reference)
    crossed = sum((a - 1) * (b - 1) + 1 for a, b in combinations(sizes, 2))
    wide = 1 + 3 * HIDDEN + sum(sizes) + crossed
    deep = mlp_count((2 + len(sizes)) * HIDDEN, 10, 1, last_bias=False)
    assert count("wide-deep", sizes, units=[10]) == wide + deep


def test_wide_deep_pairs_share_weights_only_where_there_are_too_few():
    pair = make("wide-deep", (4, 3)).pairs[0]
    with torch.no_grad():
        pair.table.weight[:, 0] = torch.arange(len(pair.table.weight))
    fields = torch.cartesian_prod(torch.arange(4), torch.arange(3))[None]
    numbers = {tuple(f): int(n) for f, n in zip(fields[0].tolist(), pair(fields)[0], strict=True)}
    assert sorted(n for f, n in numbers.items() if 0 not in f) == [1, 2, 3, 4, 5, 6]
    assert {n for f, n in numbers.items() if 0 in f} == {0}
    few = make("wide-deep", (4, 3), buckets=4).pairs[0]
    assert few.table.weight.shape == (5, 1)
    assert few(fields).isfinite().all()


def test_wide_deep_stands_fields_that_never_have_a_value():
    predictor = make("wide-deep", (1, 1))
    candidates, fields = torch.randn(4, 3, HIDDEN), torch.zeros(4, 3, 2, dtype=torch.long)
    assert predictor(user_state("vector"), candidates, fields).isfinite().all()


# --- products


@pytest.mark.parametrize("product", ["inner", "outer", "both"])
@WITH_FIELDS
def test_pnn(sizes, product):
    settings = {"product": product, "product_units": 7, "units": [6]}
    predictor = make("pnn", sizes, **settings)
    fields = 2 + len(sizes)

    def reference(vectors, values):
        inner = [a @ b for a in vectors for b in vectors]
        outer = torch.zeros(HIDDEN, HIDDEN)
        for a in vectors:
            for b in vectors:
                outer = outer + torch.outer(a, b)
        parts = {
            "inner": torch.stack(inner),
            "outer": outer.flatten(),
            "both": torch.cat([torch.stack(inner), outer.flatten()]),
        }
        linear = predictor.signals.weight @ torch.cat(vectors) + predictor.signals.bias
        hidden = linear + predictor.products.weight @ parts[product]
        return by_hand(predictor.deep, hidden.clamp(min=0))[0]

    check(predictor, sizes, reference)
    # D_1 N (M + N) for inner, and with M^2 for outer products, as the paper counts
    products = {"inner": fields**2, "outer": HIDDEN**2, "both": fields**2 + HIDDEN**2}[product]
    expected = 7 * (fields * HIDDEN + products) + 7 + mlp_count(7, 6, 1)
    assert count("pnn", sizes, **settings) == expected


# --- crosses


def joined_score(predictor, first, crossed):
    """What follows the crosses in both structures."""
    if predictor.parallel:
        joined = torch.cat([crossed, by_hand(predictor.deep, first)])
    else:
        joined = by_hand(predictor.deep, crossed)
    return predictor.output.weight[0] @ joined + predictor.output.bias[0]


@pytest.mark.parametrize("structure", ["stacked", "parallel"])
@pytest.mark.parametrize("layers", [1, 3])
@WITH_FIELDS
def test_dcnv2_recursion(sizes, layers, structure):
    settings = {"structure": structure, "cross_layers": layers, "units": [6]}
    predictor = make("dcnv2", sizes, **settings)

    def reference(vectors, values):
        first = crossed = torch.cat(vectors)
        for layer in predictor.crosses:
            crossed = torch.diag(first) @ (layer.weight @ crossed + layer.bias) + crossed
        return joined_score(predictor, first, crossed)

    check(predictor, sizes, reference)
    size = (2 + len(sizes)) * HIDDEN
    output = 6 + 1 + (size if structure == "parallel" else 0)
    expected = layers * (size**2 + size) + mlp_count(size, 6) + output
    assert count("dcnv2", sizes, **settings) == expected


@pytest.mark.parametrize("nonlinear", [False, True])
@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("structure", ["stacked", "parallel"])
def test_dcnv2_mixture_of_low_rank_experts(structure, experts, nonlinear):
    rank, size = 2, 2 * HIDDEN
    settings = {
        "structure": structure,
        "cross": "low-rank",
        "rank": rank,
        "experts": experts,
        "nonlinear": nonlinear,
        "cross_layers": 2,
        "units": [6],
    }
    predictor = make("dcnv2", **settings)

    def expert(layer, i, first, crossed):
        own = slice(i * rank, (i + 1) * rank)
        inner = layer.down.weight[own] @ crossed
        if nonlinear:
            inner = torch.tanh(layer.core[i] @ torch.tanh(inner))
        return first * (layer.up.weight[:, own] @ inner + layer.up.bias)

    def reference(vectors, values):
        first = crossed = torch.cat(vectors)
        for layer in predictor.crosses:
            shares = torch.ones(1)
            if experts > 1:
                shares = torch.softmax(layer.gate.weight @ crossed, dim=0)
            mixed = sum(g * expert(layer, i, first, crossed) for i, g in enumerate(shares))
            crossed = mixed + crossed
        return joined_score(predictor, first, crossed)

    check(predictor, (), reference)
    cross = 2 * experts * size * rank + size
    cross += experts * rank**2 if nonlinear else 0
    cross += experts * size if experts > 1 else 0
    output = 6 + 1 + (size if structure == "parallel" else 0)
    assert count("dcnv2", **settings) == 2 * cross + mlp_count(size, 6) + output


def test_dcnv2_of_a_low_rank_is_the_full_one_with_that_product_as_its_matrix():
    settings = {"cross_layers": 1, "units": [6]}
    full = make("dcnv2", **settings)
    low = make("dcnv2", **settings, cross="low-rank", rank=3, experts=1, nonlinear=False)
    with torch.no_grad():
        layer = low.crosses[0]
        full.crosses[0].weight.copy_(layer.up.weight @ layer.down.weight)
        full.crosses[0].bias.copy_(layer.up.bias)
        full.deep.load_state_dict(low.deep.state_dict())
        full.output.load_state_dict(low.output.state_dict())
    user, candidates = user_state("vector"), torch.randn(4, 3, HIDDEN)
    torch.testing.assert_close(full(user, candidates), low(user, candidates))


@pytest.mark.parametrize("structure", ["stacked", "parallel"])
@pytest.mark.parametrize("layers", [1, 3])
@WITH_FIELDS
def test_gdcn_recursion(sizes, layers, structure):
    settings = {"structure": structure, "cross_layers": layers, "units": [6]}
    predictor = make("gdcn", sizes, **settings)

    def reference(vectors, values):
        first = crossed = torch.cat(vectors)
        for layer, gate in zip(predictor.crosses, predictor.gates, strict=True):
            let_through = 1 / (1 + (-(gate.weight @ crossed)).exp())
            crossed = first * (layer.weight @ crossed + layer.bias) * let_through + crossed
        return joined_score(predictor, first, crossed)

    check(predictor, sizes, reference)
    size = (2 + len(sizes)) * HIDDEN
    output = 6 + 1 + (size if structure == "parallel" else 0)
    expected = layers * (2 * size**2 + size) + mlp_count(size, 6) + output
    assert count("gdcn", sizes, **settings) == expected


# --- attention, masks, streams


@pytest.mark.parametrize("units", [[], [6]])
@pytest.mark.parametrize("layers", [1, 2])
@WITH_FIELDS
def test_autoint_by_loop(sizes, layers, units):
    heads, head = 2, 3
    settings = {"layers": layers, "heads": heads, "head_size": head, "units": units}
    predictor = make("autoint", sizes, **settings)

    def attend(layer, vectors):
        following = []
        for m in vectors:
            joined = []
            for h in range(heads):
                own = slice(h * head, (h + 1) * head)
                query, key, value = (
                    part.weight[own] for part in (layer.query, layer.key, layer.value)
                )
                powers = torch.stack([((query @ m) @ (key @ k)).exp() for k in vectors])
                shares = powers / powers.sum()
                joined.append(sum(a * (value @ k) for a, k in zip(shares, vectors, strict=True)))
            following.append((torch.cat(joined) + layer.residual.weight @ m).clamp(min=0))
        return following

    def reference(vectors, values):
        attended = vectors
        for layer in predictor.layers:
            attended = attend(layer, attended)
        score = predictor.output.weight[0] @ torch.cat(attended) + predictor.output.bias[0]
        return score + (by_hand(predictor.deep, torch.cat(vectors))[0] if units else 0)

    check(predictor, sizes, reference)
    fields, width = 2 + len(sizes), heads * head
    expected = 4 * HIDDEN * width + (layers - 1) * 4 * width**2 + fields * width + 1
    expected += mlp_count(fields * HIDDEN, *units, 1, last_bias=False) if units else 0
    assert count("autoint", sizes, **settings) == expected


def normed(values, gain, shift, eps=1e-5):
    """Layer norm from its definition."""
    mean = values.sum() / len(values)
    variance = ((values - mean) ** 2).sum() / len(values)
    return (values - mean) / torch.sqrt(variance + eps) * gain + shift


@pytest.mark.parametrize("structure", ["serial", "parallel"])
@pytest.mark.parametrize("blocks", [1, 3])
@WITH_FIELDS
def test_masknet(sizes, blocks, structure):
    width = 5
    settings = {
        "structure": structure,
        "blocks": blocks,
        "block_size": width,
        "reduction": 3,
        "units": [6],
    }
    predictor = make("masknet", sizes, **settings)

    def block_by_hand(block, values, context):
        masked = by_hand(block.mask, context) * values
        return normed(block.linear.weight @ masked, block.norm.weight, block.norm.bias).clamp(min=0)

    def reference(vectors, values):
        context = torch.cat(vectors)
        own = zip(vectors, predictor.gain, predictor.shift, strict=True)
        read = torch.cat([normed(v, gain, shift) for v, gain, shift in own])
        if structure == "parallel":
            outputs = [block_by_hand(block, read, context) for block in predictor.blocks]
            return by_hand(predictor.output, torch.cat(outputs))[0]
        for block in predictor.blocks:
            read = block_by_hand(block, read, context)
        return by_hand(predictor.output, read)[0]

    check(predictor, sizes, reference)
    size = (2 + len(sizes)) * HIDDEN
    later = size if structure == "parallel" else width
    reads = [size] + [later] * (blocks - 1)
    each = [mlp_count(size, 3 * read, read) + read * width + 2 * width for read in reads]
    output = mlp_count(blocks * width, 6, 1) if structure == "parallel" else width + 1
    assert count("masknet", sizes, **settings) == 2 * size + sum(each) + output


@pytest.mark.parametrize("heads", [1, 2])
@WITH_FIELDS
def test_finalmlp(sizes, heads):
    settings = {
        "first_units": [10, 4],
        "second_units": [6],
        "gate_units": [5],
        "heads": heads,
    }
    predictor = make("finalmlp", sizes, **settings)

    def reference(vectors, values):
        joined = torch.cat(vectors)
        gates = [by_hand(predictor.gates[n], vectors[n]) for n in range(2)]
        one, two = (
            by_hand(predictor.streams[n], 2 / (1 + (-gates[n]).exp()) * joined) for n in range(2)
        )
        fusion = predictor.fusion
        score = fusion.first.bias[0] + fusion.first.weight[0] @ one + fusion.second.weight[0] @ two
        for h, (left, right) in enumerate(zip(one.chunk(heads), two.chunk(heads), strict=True)):
            for i in range(len(left)):
                for j in range(len(right)):
                    score = score + left[i] * fusion.both[h, i, j] * right[j]
        return score

    check(predictor, sizes, reference)
    size = (2 + len(sizes)) * HIDDEN
    streams = mlp_count(size, 10, 4) + mlp_count(size, 6)
    fusion = 1 + 4 + 6 + heads * (4 // heads) * (6 // heads)
    assert count("finalmlp", sizes, **settings) == (
        2 * mlp_count(HIDDEN, 5, size) + streams + fusion
    )


def test_finalmlp_says_which_heads_fit():
    settings = {"name": "finalmlp", "first_units": [12], "second_units": [8], "heads": 3}
    part, config = parse_part("predictor", settings)
    (problem,) = part.problems(config, 64)
    assert problem == "heads 3 do not divide the last of second_units, 8; all of [1, 2, 4] do"
    assert part.problems(parse_part("predictor", {**settings, "heads": 4})[1], 64) == []


# --- all of them


@pytest.mark.parametrize(
    "case", [case for case in cases("predictor") if case.values[0].name in MINE]
)
def test_bfloat16_gives_about_the_same_and_a_gradient(case):
    part, config = parse_part("predictor", case.config(""))
    sizes = (4, 3)[: len(getattr(config, "fields", []))]
    predictor = perturb(part(config, small_shape(fields=sizes))).eval()
    user = user_state(min(part.accepts))
    candidates = torch.randn(4, 3, HIDDEN, requires_grad=True)
    low = UserState(user.kind, user.values.bfloat16())  # as an operator gives it under autocast
    expected = predictor(user, candidates, values_of(sizes)).detach()
    with torch.autocast("cpu", torch.bfloat16):
        scores = predictor(low, candidates, values_of(sizes))
    assert scores.dtype == torch.float32  # lest candidates with near scores be tied
    assert (scores - expected).abs().max() < 0.05 * expected.abs().max().clamp(min=1)
    scores.float().square().sum().backward()
    for weight in (candidates, *predictor.parameters()):
        assert weight.grad is not None
        assert weight.grad.isfinite().all()


def test_default_settings_build_at_the_default_width():
    for name in MINE:
        part, config = parse_part("predictor", {"name": name})
        predictor = part(config, Shape(64, 10)).eval()
        values = torch.randn(2, 3, 64) if "interests" in part.accepts else torch.randn(2, 64)
        scores = predictor(UserState(min(part.accepts), values), torch.randn(2, 1, 64))
        assert scores.shape == (2, 1)
        assert scores.isfinite().all()
