"""The other behavior operators against loops over the papers' equations, one user at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from model_cases import HIDDEN, USERS, histories, past, perturb, small_shape
from test_content_reference import additive
from torch import nn
from torch.nn import functional as F

from legoray.model.base import UserState
from legoray.model.behavior.order import ages
from legoray.model.behavior.poly_attention import disagree
from legoray.model.recommender import Recommender
from legoray.model.registry import parse_part

ZERO = torch.zeros(HIDDEN)
HOLE = 3  # the row of `histories` whose mask has a hole


def make(name, features=None, **settings):
    part, config = parse_part("behavior", {"name": name, **settings})
    sizes = {"history_input": features.sizes} if features else {}
    return perturb(part(config, small_shape(**sizes))).eval()


def check(operator, reference):
    """`reference(items, user)` from the items that are there, for each user."""
    history = past(*histories())
    rows = zip(history.vectors, history.mask, history.users, strict=True)
    expected = torch.stack([reference(h[m], int(user)) for h, m, user in rows])
    torch.testing.assert_close(operator(history).values, expected, atol=1e-5, rtol=1e-5)


def size_of(module):
    return sum(p.numel() for p in module.parameters())


def gru_by_loop(items, state, layer):
    """A gated recurrent unit from its equations, to the end of the items."""
    of_input = zip(layer.weight_ih_l0.chunk(3), layer.bias_ih_l0.chunk(3), strict=True)
    of_state = zip(layer.weight_hh_l0.chunk(3), layer.bias_hh_l0.chunk(3), strict=True)
    read, keep, new = (
        (lambda x, h, a=a, b=b: (a[0] @ x + a[1], b[0] @ h + b[1]))
        for a, b in zip(of_input, of_state, strict=True)
    )
    for x in items:
        r, z = torch.sigmoid(sum(read(x, state))), torch.sigmoid(sum(keep(x, state)))
        from_input, from_state = new(x, state)
        state = (1 - z) * torch.tanh(from_input + r * from_state) + z * state
    return state


def user_vector(operator, user):
    table = operator.users.table.weight
    return table[user] if user else torch.zeros(table.shape[1])


def attend(scores, values):
    """Values weighted by a softmax of their scores, by a loop."""
    if not len(values):
        return ZERO
    shares = [math.exp(s.item()) for s in scores]
    return sum(share / sum(shares) * v for share, v in zip(shares, values, strict=True))


# --- lstur


def test_lstur_starts_from_the_user_and_ends_at_the_true_length():
    operator = make("lstur")
    check(operator, lambda x, user: gru_by_loop(x, user_vector(operator, user), operator.gru))


@pytest.mark.parametrize("hidden", [HIDDEN, 7])
def test_lstur_joins_two_halves(hidden):
    part, config = parse_part("behavior", {"name": "lstur", "how": "concat"})
    operator = perturb(part(config, small_shape(hidden_size=hidden))).eval()
    vectors, mask = histories()
    history = past(vectors[..., :hidden], mask)
    expected = []
    for h, m, user in zip(history.vectors, mask, USERS, strict=True):
        state = gru_by_loop(h[m], torch.zeros(hidden - hidden // 2), operator.gru)
        expected.append(torch.cat([state, user_vector(operator, int(user))]))
    torch.testing.assert_close(
        operator(history).values, torch.stack(expected), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "lstur"},
        {"name": "lstur", "how": "concat"},
        {"name": "personalised", "dropout": 0.0},
    ],
)
def test_a_hidden_user_is_one_who_is_not_known(settings):
    operator = make(**settings, mask_rate=0.999)
    history = past(*histories())
    unknown = operator(replace(history, users=torch.zeros_like(USERS))).values
    assert not torch.allclose(operator(history).values, unknown)  # not hidden in evaluation
    operator.train()
    operator.users.mask_rate = 1.0
    torch.testing.assert_close(operator(history).values, unknown)


def test_users_are_hidden_at_the_rate_asked_for_and_whole_and_not_rescaled():
    operator = make("lstur", mask_rate=0.3)
    users = torch.full((4000,), 2)
    history = replace(past(*histories()), users=users)
    found = operator.train().users(history)
    hidden = (found == 0).all(dim=1)
    assert 0.27 < float(hidden.float().mean()) < 0.33
    assert (found[~hidden] == operator.users.table.weight[2]).all()


def test_the_unknown_user_is_zeros_and_never_trained():
    operator = make("lstur", mask_rate=0.0)
    history = past(*histories())
    assert (operator.users(history)[USERS == 0] == 0).all()
    operator(history).values.sum().backward()
    assert (operator.users.table.weight.grad[0] == 0).all()
    part, config = parse_part("behavior", {"name": "lstur"})
    assert (part(config, small_shape()).users.table.weight[0] == 0).all()


# --- personalised


def test_personalised():
    operator = make("personalised", user_size=6, query_size=10)

    def reference(items, user):
        v, w = operator.query, operator.project
        query = torch.relu(v.weight @ user_vector(operator, user) + v.bias)
        wanted = torch.tanh(w.weight @ query + w.bias)
        return attend([x @ wanted for x in items], items)

    check(operator, reference)


def test_operators_that_read_users_say_so_when_there_are_none():
    history = replace(past(*histories()), users=None)
    for name in ("lstur", "personalised"):
        operator = make(name)
        assert operator.reads_users
        with pytest.raises(ValueError, match="who the user is"):
            operator(history)


# --- positions, transformers


def test_ages_count_present_items_from_the_newest():
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
    assert ages(mask).tolist() == [[2, 1, 0, 0], [0, 2, 0, 1], [0, 0, 0, 0]]


def placed(operator, items):
    """Items with the vector of their position, the last one's being 1."""
    table = operator.place.table.weight
    return torch.stack([x + table[len(items) - n] for n, x in enumerate(items)])


def torch_layers(layers, heads, size, *, pre_norm):
    """torch's own encoder layers with the weights of ours."""
    made = []
    for own in layers:
        first, last = own.feed_forward.layers[0], own.feed_forward.layers[-1]
        other = nn.TransformerEncoderLayer(
            size, heads, first.out_features, 0.0, batch_first=True, norm_first=pre_norm
        )
        attend = own.attend
        weights = {
            "self_attn.in_proj_weight": torch.cat(
                [attend.query.weight, attend.key.weight, attend.value.weight]
            ),
            "self_attn.in_proj_bias": torch.cat(
                [attend.query.bias, torch.zeros(size), attend.value.bias]
            ),
        }
        named = {
            "self_attn.out_proj": attend.output,
            "linear1": first,
            "linear2": last,
            "norm1": own.attend_norm,
            "norm2": own.feed_norm,
        }
        for name, layer in named.items():
            weights |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
        other.load_state_dict(weights)
        made.append(other.eval())
    return made


@pytest.mark.parametrize("pool", ["mean", "additive"])
def test_transformer(pool):
    operator = make("transformer", layers=2, heads=2, inner_size=12, pool=pool)
    layers = torch_layers(operator.mix.layers, 2, HIDDEN, pre_norm=False)

    def reference(items, user):
        if not len(items):
            return ZERO
        values = placed(operator, items)[None]
        for layer in layers:
            values = layer(values)
        return values[0].mean(0) if pool == "mean" else additive(values[0], operator.pool)

    check(operator, reference)


def test_causal_transformer():
    operator = make("causal-transformer", layers=2, heads=2)
    layers = torch_layers(operator.mix.layers, 2, HIDDEN, pre_norm=True)

    def reference(items, user):
        if not len(items):
            return ZERO
        values = placed(operator, items)[None]
        future = nn.Transformer.generate_square_subsequent_mask(len(items))
        for layer in layers:
            values = layer(values, src_mask=future)
        return operator.mix.norm(values[0, -1])

    check(operator, reference)


def test_the_causal_transformer_sees_no_future():
    operator = make("causal-transformer", layers=2, heads=2)
    history = past(*histories())
    before = operator.states(history)
    changed = history.vectors.clone()
    changed[:, 3:] += torch.randn(4, 2, HIDDEN)
    after = operator.states(replace(history, vectors=changed))
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[0, 3:], after[0, 3:])
    for spot in range(5):
        vectors = history.vectors.clone().requires_grad_()
        operator.states(replace(history, vectors=vectors))[0, spot].square().sum().backward()
        seen = vectors.grad[0].abs().sum(dim=1) > 0
        assert seen.tolist() == [n <= spot for n in range(5)]


@pytest.mark.parametrize("name", ["transformer", "causal-transformer", "fastformer", "cnn"])
def test_the_order_of_the_history_matters(name):
    operator = make(name)
    mask = torch.ones(4, 5, dtype=torch.bool)
    vectors, _ = histories()
    there, back = operator(past(vectors, mask)), operator(past(vectors.flip(1), mask))
    assert not torch.allclose(there.values, back.values, atol=1e-4)


@pytest.mark.parametrize("name", ["transformer", "causal-transformer", "fastformer"])
def test_histories_longer_than_the_longest_share_the_last_position(name):
    vectors = torch.randn(2, 14, HIDDEN)  # ten is the longest of the shape
    operator = make(name)
    history = past(vectors, torch.ones(2, 14, dtype=torch.bool))
    assert torch.isfinite(operator(history).values).all()
    added = operator.place(history) - vectors
    torch.testing.assert_close(added[:, :4], added[:, 4:5].expand(-1, 4, -1))


def fastformer_layer_by_loop(values, layer):
    """Fastformer's attention head by head (eqs. 1-4), then the feed-forward network."""
    attend = layer.attend
    width = values.shape[1] // attend.heads
    normed = [layer.attend_norm(x) for x in values]
    query = torch.stack([attend.query.weight @ x + attend.query.bias for x in normed])
    key = torch.stack([attend.key.weight @ x + attend.key.bias for x in normed])
    mixed = torch.zeros_like(values)
    for head in range(attend.heads):
        own = slice(head * width, (head + 1) * width)
        q, k = query[:, own], key[:, own]

        def summary(rows, weight):
            energies = [math.exp((weight @ row).item() / math.sqrt(len(row))) for row in rows]
            return sum(e / sum(energies) * row for e, row in zip(energies, rows, strict=True))

        all_queries = summary(q, attend.query_weight[head])
        all_keys = summary([all_queries * row for row in k], attend.key_weight[head])
        mixed[:, own] = torch.stack([all_keys * row for row in q])
    linear = attend.transform
    values = values + torch.stack(
        [linear.weight @ u + linear.bias + q for u, q in zip(mixed, query, strict=True)]
    )
    first, last = layer.feed_forward.layers[0], layer.feed_forward.layers[-1]
    inner = [F.gelu(first.weight @ layer.feed_norm(y) + first.bias) for y in values]
    return values + torch.stack([last.weight @ x + last.bias for x in inner])


def test_fastformer():
    operator = make("fastformer", layers=2, heads=2, inner_size=12)

    def reference(items, user):
        if not len(items):
            return ZERO
        values = placed(operator, items)
        for n in range(2):
            values = fastformer_layer_by_loop(
                values, operator.mix.layers[n % len(operator.mix.layers)]
            )
        return additive(operator.mix.norm(values), operator.pool)

    with torch.no_grad():
        check(operator, reference)


# --- poly-attention


def test_poly_attention():
    operator = make("poly-attention", interests=3, code_size=6)

    def reference(items, user):
        inner = [torch.tanh(operator.project.weight @ x) for x in items]
        return torch.stack([attend([c @ t for t in inner], items) for c in operator.codes.weight])

    check(operator, reference)


def test_poly_attention_gives_masked_items_exactly_no_weight():
    operator = make("poly-attention", interests=3, code_size=6)
    vectors, mask = histories()
    weights = operator.weights(vectors * 1e4, mask)
    assert (weights[~mask[:, None].expand_as(weights)] == 0).all()
    full = mask.any(dim=1)
    torch.testing.assert_close(weights[full].sum(dim=-1), torch.ones(int(full.sum()), 3))
    assert (weights[~full] == 0).all()


def test_the_penalty_is_the_mean_cosine_of_all_pairs():
    operator = make("poly-attention", interests=3, code_size=6, disagreement=0.25).train()
    history = past(*histories())
    state = operator(history)
    for interests, penalty, mask in zip(state.values, state.penalty, history.mask, strict=True):
        total = 0.0
        for first in interests:
            for second in interests:
                total += F.cosine_similarity(first, second, dim=0).item()
        assert penalty.item() == pytest.approx(0.25 * total / 9, abs=1e-6)
        assert mask.any() or penalty == 0
    assert operator.eval()(history).penalty is None
    assert make("poly-attention", disagreement=0.0).train()(history).penalty is None


def test_following_the_penalty_drives_interests_apart():
    interests = (torch.randn(1, 1, HIDDEN) + torch.randn(2, 4, HIDDEN) * 0.3).requires_grad_()
    before = disagree(interests)
    before.sum().backward()
    assert (disagree(interests.detach() - 0.1 * interests.grad) < before).all()


# --- candidate-attention


def test_candidate_attention_weights_the_history_for_each_candidate():
    operator = make("candidate-attention", units=[12, 6], activation="tanh")
    candidates = torch.randn(4, 3, HIDDEN)
    history = past(*histories())
    found = operator(history, candidates).values
    first, then = operator.compare, [x for x in operator.rest.layers if isinstance(x, nn.Linear)]

    def score(item, candidate):
        inner = first.weight @ torch.cat([item, candidate, item * candidate]) + first.bias
        inner = then[0].weight @ torch.tanh(inner) + then[0].bias
        return then[1].weight[0] @ torch.tanh(inner)

    for b in range(4):
        items = history.vectors[b][history.mask[b]]
        for k in range(3):
            expected = attend([score(x, candidates[b, k]) for x in items], items)
            torch.testing.assert_close(found[b, k], expected, atol=1e-5, rtol=1e-5)


def test_a_candidates_user_does_not_depend_on_the_other_candidates():
    operator = make("candidate-attention")
    candidates = torch.randn(4, 3, HIDDEN)
    history = past(*histories())
    together = operator(history, candidates).values
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(operator(history, candidates[:, order]).values, together[:, order])
    for k in range(3):
        alone = operator(history, candidates[:, k : k + 1]).values
        torch.testing.assert_close(alone[:, 0], together[:, k])
    assert not torch.allclose(together[0, 0], together[0, 1])
    with pytest.raises(ValueError, match="candidates"):
        operator(history)


def test_a_model_scores_each_candidate_with_its_own_user():
    operator = make("candidate-attention")
    part, config = parse_part("predictor", {"name": "dot"})
    model = Recommender(nn.Identity(), operator, part(config, small_shape())).eval()
    vectors, mask = histories()
    candidates = torch.randn(4, 3, HIDDEN)
    scores = model.score(UserState("sequence", vectors, mask), candidates).detach()
    users = operator(past(vectors, mask), candidates).values.detach()
    for b in range(4):
        for k in range(3):
            expected = (users[b, k] * candidates[b, k]).sum()
            torch.testing.assert_close(scores[b, k], expected)


# --- cnn


@pytest.mark.parametrize(("length", "heights"), [(3, None), (4, [2, 3]), (6, [6])])
def test_cnn(length, heights):
    operator = make("cnn", length=length, heights=heights, horizontal=3, vertical=2)

    def reference(items, user):
        if not len(items):
            return ZERO
        rows = [ZERO] * length + list(items)
        image = torch.stack(rows[-length:])
        joined = []
        for layer in operator.horizontal:
            height = layer.kernel_size[0]
            for weight, bias in zip(layer.weight, layer.bias, strict=True):
                windows = [image[t : t + height].T for t in range(length - height + 1)]
                joined.append(max(torch.relu((weight * w).sum() + bias) for w in windows))
        for weight in operator.vertical.weight:
            joined += list(sum(share * row for share, row in zip(weight, image, strict=True)))
        return torch.relu(operator.project.weight @ torch.stack(joined) + operator.project.bias)

    check(operator, reference)


def test_cnn_reads_the_newest_items_alone():
    operator = make("cnn", length=2)
    vectors, mask = histories()
    older = vectors.clone()
    older[0, :3] += 5
    older[HOLE, 1] += 5  # the oldest of three
    torch.testing.assert_close(
        operator(past(older, mask)).values, operator(past(vectors, mask)).values
    )
    older[0, 3] += 5
    assert not torch.allclose(
        operator(past(older, mask)).values[0], operator(past(vectors, mask)).values[0]
    )


# --- sizes and settings


D, U, H = HIDDEN, 5, 10  # of the small shape: width, rows of the user table, longest history
FEED = 2 * D * 12 + 12 + D
TRANSFORMER = 4 * D * D + 3 * D + FEED + 4 * D  # no bias of the keys
FASTFORMER = 3 * (D * D + D) + 2 * D + FEED + 4 * D
ADDITIVE = D * 64 + 64 + 64


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("lstur", {}, U * D + 3 * (2 * D * D + 2 * D)),
        ("lstur", {"how": "concat"}, U * 4 + 3 * (D * 4 + 4 * 4 + 2 * 4)),
        ("transformer", {"layers": 2, "inner_size": 12}, (H + 1) * D + 2 * TRANSFORMER),
        (
            "causal-transformer",
            {"layers": 2, "inner_size": 12},
            (H + 1) * D + 2 * TRANSFORMER + 2 * D,
        ),
        (
            "fastformer",
            {"layers": 2, "inner_size": 12},
            (H + 1) * D + FASTFORMER + 2 * D + ADDITIVE,
        ),
        ("poly-attention", {"interests": 3, "code_size": 6}, D * 6 + 6 * 3),
        ("candidate-attention", {"units": [12]}, 3 * D * 12 + 12 + 12),
        (
            "cnn",
            {"length": 3, "horizontal": 4, "vertical": 2},
            (1 + 2 + 3) * D * 4 + 3 * 4 + 3 * 2 + (3 * 4 + 2 * D) * D + D,
        ),
        ("personalised", {"user_size": 6, "query_size": 9}, U * 6 + 6 * 9 + 9 + 9 * D + D),
    ],
)
def test_parameters_are_as_many_as_the_paper_says(name, settings, count):
    assert size_of(make(name, **settings)) == count


@pytest.mark.parametrize(
    ("name", "settings", "hidden", "text"),
    [
        *[
            (n, {"heads": 3}, 8, "heads 3")
            for n in ("transformer", "fastformer", "flatten-transformer")
        ],
        ("causal-transformer", {"heads": 5}, 8, "heads 5"),
        ("cnn", {"length": 3, "heights": [2, 4]}, 8, "heights [4]"),
        ("lstur", {"how": "concat"}, 1, "hidden_size is 1"),
    ],
)
def test_settings_that_do_not_go_together(name, settings, hidden, text):
    part, config = parse_part("behavior", {"name": name, **settings})
    (problem,) = part.problems(config, hidden)
    assert text in problem
    fine, config = parse_part("behavior", {"name": name})
    assert fine.problems(config, 64) == []
