"""Stored vectors, codes, categories and layers as features; of files, of models, of new items."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from model_cases import ITEMS, N
from safetensors.torch import save_file

from legoray.data import vectors as files
from legoray.data.codes import assign_codes, fit_centroids, read_codes, write_codes
from legoray.data.recipes import (
    CategoryRecipe,
    CodeRecipe,
    IdRecipe,
    JoinedRecipe,
    LayersRecipe,
    TokenRecipe,
    VectorRecipe,
    VectorSource,
)
from legoray.data.vectors import read_vectors, write_vectors
from legoray.errors import DamagedError, InputError
from legoray.model.features import features_of_texts, open_features

ALL = torch.arange(1, N + 1)
KEYS = [f"i{n}" for n in range(1, N + 1)]
VECTORS = np.random.default_rng(3).standard_normal((N, 4)).astype(np.float32)


def source_of(tiny, **changes):
    return VectorSource(**{"model": tiny, "template": "{title}", "length": 8, **changes})


def write(path, keys=KEYS, vectors=VECTORS):
    """A file of vectors, of the form that its suffix says."""
    if path.suffix == ".npy":
        np.save(path, vectors)
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"key": keys, "vector": list(vectors)}), path)
    else:
        metadata = {"keys": json.dumps(list(keys))}
        save_file({"vectors": torch.from_numpy(np.ascontiguousarray(vectors))}, path, metadata)
    return path


def said_by(path, keys=KEYS):
    with pytest.raises(InputError) as caught:
        read_vectors(path, keys)
    assert str(path) in str(caught.value)
    return str(caught.value)


# --- files of vectors ---


@pytest.mark.parametrize("name", ["v.npy", "v.parquet", "v.safetensors"])
def test_every_form_gives_the_vectors_in_the_items_order(tmp_path, name):
    assert np.array_equal(read_vectors(write(tmp_path / name), KEYS), VECTORS)


@pytest.mark.parametrize("name", ["v.parquet", "v.safetensors"])
def test_keys_decide_not_rows_and_more_keys_do_no_harm(tmp_path, name):
    order = np.random.default_rng(0).permutation(N + 2)
    keys = np.array([*KEYS, "x1", "x2"])[order]
    vectors = np.concatenate([VECTORS, np.full((2, 4), np.nan, np.float32)])[order]
    found = read_vectors(write(tmp_path / name, list(keys), vectors), pa.chunked_array([KEYS]))
    assert np.array_equal(found, VECTORS)


def test_half_precision_and_fixed_lists_are_read_too(tmp_path):
    half = torch.from_numpy(VECTORS).bfloat16()
    metadata = {"keys": json.dumps(KEYS)}
    save_file({"vectors": half}, tmp_path / "v.safetensors", metadata)
    assert np.array_equal(read_vectors(tmp_path / "v.safetensors", KEYS), half.float().numpy())
    lists = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.astype(np.float64).ravel()), 4)
    pq.write_table(pa.table({"key": KEYS, "vector": lists}), tmp_path / "v.parquet")
    assert np.array_equal(read_vectors(tmp_path / "v.parquet", KEYS), VECTORS)
    double = write(tmp_path / "w.npy", vectors=VECTORS.astype(np.float64))
    assert np.array_equal(read_vectors(double, KEYS), VECTORS)


def test_keys_may_lie_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_METADATA", 10)
    write_vectors(tmp_path / "v.safetensors", KEYS, torch.from_numpy(VECTORS), {"model": "m"})
    assert json.loads((tmp_path / "v.keys.json").read_text()) == KEYS
    assert np.array_equal(read_vectors(tmp_path / "v.safetensors", KEYS), VECTORS)
    (tmp_path / "v.keys.json").unlink()
    assert "neither in its metadata as 'keys' nor in v.keys.json" in said_by(
        tmp_path / "v.safetensors"
    )


@pytest.mark.parametrize("name", ["v.parquet", "v.safetensors"])
def test_missing_and_double_keys_are_counted_and_named(tmp_path, name):
    said = said_by(write(tmp_path / name, ["i1", "x2", *KEYS[2:-1], "x9"]))
    assert f"2 of {N} items have no vector, such as i2, i{N}" in said
    assert f"2 of its {N} keys are of no item, such as x2, x9" in said
    said = said_by(write(tmp_path / name, ["i1", "i1", *KEYS[2:]]))
    assert "1 keys stand twice, such as i1" in said


def test_a_wrong_number_of_rows_is_named(tmp_path):
    said = said_by(write(tmp_path / "v.npy", vectors=VECTORS[:-1]))
    assert f"has {N - 1} rows, the data set has {N} items" in said


@pytest.mark.parametrize("name", ["v.npy", "v.parquet", "v.safetensors"])
def test_a_number_that_is_none_is_named_with_the_items_key(tmp_path, name):
    vectors = VECTORS.copy()
    vectors[3, 1], vectors[5, 0] = np.nan, np.inf
    said = said_by(write(tmp_path / name, vectors=vectors))
    assert "the vector of item i4 has a NaN or infinite number (2 items have one)" in said


def test_a_pickle_is_refused(tmp_path):
    np.save(tmp_path / "v.npy", np.array([{"a": 1}] * N, dtype=object), allow_pickle=True)
    assert "cannot be read" in said_by(tmp_path / "v.npy")


def test_files_of_another_kind_are_refused(tmp_path):
    assert "no such file" in said_by(tmp_path / "v.npy")
    (tmp_path / "v.npy").write_bytes(b"")
    (tmp_path / "v.parquet").write_bytes(b"PAR1")
    (tmp_path / "v.safetensors").write_bytes(b"12345678901")
    for name in ("v.npy", "v.parquet", "v.safetensors"):
        assert "cannot be read" in said_by(tmp_path / name)
    (tmp_path / "v.npy").write_bytes(b"hello")
    assert said_by(tmp_path / "v.npy").endswith("cannot be read: it is no array of numbers")
    (tmp_path / "v.csv").write_text("a,b")
    assert "expected .npy, .parquet, .safetensors" in said_by(tmp_path / "v.csv")
    assert "expected [items, width]" in said_by(write(tmp_path / "a.npy", vectors=VECTORS[:, 0]))
    whole = np.ones((N, 2), dtype=np.int64)
    assert "floating point was expected" in said_by(write(tmp_path / "b.npy", vectors=whole))
    pq.write_table(pa.table({"id": KEYS, "vector": list(VECTORS)}), tmp_path / "c.parquet")
    assert "has no column 'key' (it has: id, vector)" in said_by(tmp_path / "c.parquet")
    ragged = [list(row[: 1 + n % 2]) for n, row in enumerate(VECTORS)]
    pq.write_table(pa.table({"key": KEYS, "vector": ragged}), tmp_path / "d.parquet")
    assert "its vectors have different widths" in said_by(tmp_path / "d.parquet")
    save_file({"v": torch.from_numpy(VECTORS)}, tmp_path / "e.safetensors")
    assert "has no tensor 'vectors' (it has: v)" in said_by(tmp_path / "e.safetensors")
    assert "8 keys and 9 vectors" in said_by(write(tmp_path / "f.safetensors", KEYS[:-1]))


# --- vectors as features ---


def test_vectors_of_a_file_are_gathered_and_cannot_be_had_of_new_items(tmp_path, tables, home):
    recipe = VectorRecipe(VectorSource(file=str(write(tmp_path / "v.parquet"))))
    features = open_features(recipe, tables, home)
    assert (features.item_count, features.sizes.width) == (N + 1, 4)
    items = torch.tensor([5, 1, 5])
    assert torch.equal(features.gather(items), torch.from_numpy(VECTORS[[4, 0, 4]]))
    assert features.lengths(items).tolist() == [1, 1, 1]
    assert features.gather(items[:0]).shape == (0, 4)
    features.save_assets(tmp_path)
    with pytest.raises(InputError, match="it cannot score them"):
        features_of_texts(recipe, tmp_path, ITEMS)


def test_vectors_of_a_model_equal_those_of_the_same_texts(tmp_path, tables, home, tiny):
    recipe = VectorRecipe(source_of(tiny))
    features = open_features(recipe, tables, home)
    assert (features.item_count, features.sizes.width) == (N + 1, 16)
    features.save_assets(tmp_path)
    assert json.loads((tmp_path / "language_model.json").read_text())["id"] == tiny
    new = features_of_texts(recipe, tmp_path, ITEMS[3:])
    assert new.item_count == N - 3 + 1
    torch.testing.assert_close(new.gather(ALL[: N - 3]), features.gather(ALL[3:]))


def test_layers_are_gathered_as_they_are_stored(tmp_path, tables, home, tiny):
    recipe = LayersRecipe(tiny, "{title}", 8)
    features = open_features(recipe, tables, home)
    assert (features.sizes.width, features.sizes.layers) == (16, 3)
    states = features.gather(torch.tensor([2, 9]))
    assert (states.shape, states.dtype) == ((2, 3, 16), torch.bfloat16)
    new = features_of_texts(recipe, tmp_path, ITEMS)
    assert torch.equal(new.gather(ALL), features.gather(ALL))
    vectors = open_features(VectorRecipe(source_of(tiny)), tables, home).gather(ALL)
    assert torch.equal(features.gather(ALL)[:, -1], vectors.bfloat16())


# --- categories ---


def test_categories_are_numbered_by_value_and_new_items_get_the_same_numbers(
    tmp_path, tables, home
):
    recipe = CategoryRecipe(("abstract", "title"))
    features = open_features(recipe, tables, home)
    columns = [[row[name] for row in ITEMS] for name in recipe.attributes]
    ordered = [sorted({value for value in column if value}) for column in columns]
    assert features.sizes.values == tuple(len(values) + 1 for values in ordered)
    expected = [
        [values.index(value) + 1 if value else 0 for value in column]
        for values, column in zip(ordered, columns, strict=True)
    ]
    assert torch.equal(features.gather(ALL), torch.tensor(expected).T)
    features.save_assets(tmp_path)
    rows = [ITEMS[4], {"title": "never seen", "abstract": ""}, {**ITEMS[0], "more": "x"}]
    new = features_of_texts(recipe, tmp_path, rows)
    found = new.gather(torch.tensor([1, 2, 3]))
    known = features.gather(torch.tensor([5, 1]))
    assert torch.equal(found, torch.stack([known[0], torch.zeros(2, dtype=torch.int64), known[1]]))
    assert new.sizes == features.sizes
    with pytest.raises(InputError, match="item 1: 'abstract' is missing"):
        features_of_texts(recipe, tmp_path, [{"title": "x"}])
    (tmp_path / "categories.json").write_text("{}")
    with pytest.raises(DamagedError, match=r"categories\.json"):
        features_of_texts(recipe, tmp_path, rows)
    with pytest.raises(InputError, match="did you mean 'title'"):
        open_features(CategoryRecipe(("titel",)), tables, home)


# --- codes ---


def coded_by_loops(vectors, centroids):
    """Residual quantization, one vector and one centroid at a time."""
    rows = []
    for vector in vectors.astype(np.float64):
        left, row = vector, []
        for level in centroids.astype(np.float64):
            distances = [np.sum((left - centroid) ** 2) for centroid in level]
            row.append(int(np.argmin(distances)) + 1)
            left = left - level[row[-1] - 1]
        rows.append(row)
    return np.array(rows)


def test_codes_are_nearest_centroids_of_what_is_left():
    vectors = np.random.default_rng(1).standard_normal((200, 6)).astype(np.float32) + 3
    centroids = fit_centroids(vectors, levels=3, codes=8, seed=5)
    codes = assign_codes(vectors, centroids)
    assert (centroids.shape, codes.shape) == ((3, 8, 6), (200, 3))
    assert np.array_equal(codes, coded_by_loops(vectors, centroids))
    assert codes.min() == 1
    assert codes.max() == 8
    assert np.array_equal(codes, assign_codes(vectors, fit_centroids(vectors, 3, 8, 5)))
    assert not np.array_equal(codes, assign_codes(vectors, fit_centroids(vectors, 3, 8, 6)))
    # the first level is scikit-learn's own k-means, and each level leaves less
    from sklearn.cluster import KMeans

    plain = KMeans(8, n_init=1, random_state=5).fit(vectors)
    assert np.array_equal(codes[:, 0], plain.labels_ + 1)
    left, norms = vectors.copy(), [float(np.square(vectors - vectors.mean(0)).mean())]
    for level in range(3):
        left = left - centroids[level][codes[:, level] - 1]
        norms.append(float(np.square(left).mean()))
    assert norms == sorted(norms, reverse=True)


def test_k_means_finds_planted_groups_of_groups():
    random = np.random.default_rng(0)
    coarse, fine = np.eye(3) * 100, np.eye(3)[::-1] * 8
    group = random.integers(0, 3, (300, 2))
    vectors = coarse[group[:, 0]] + fine[group[:, 1]] + random.standard_normal((300, 3)) * 0.01
    codes = assign_codes(vectors.astype(np.float32), fit_centroids(vectors, 2, 3, 0))
    for level in (0, 1):
        pairs = {(int(a), int(b)) for a, b in zip(group[:, level], codes[:, level], strict=True)}
        assert len(pairs) == 3  # one code per group


def test_few_items_or_equal_ones_get_codes_too():
    same = np.ones((5, 3), dtype=np.float32)
    codes = assign_codes(same, fit_centroids(same, 2, 256, 0))
    assert (codes == codes[0]).all()
    assert (codes >= 1).all()


def test_many_vectors_are_clustered_in_small_batches(monkeypatch):
    from legoray.data import codes as module

    monkeypatch.setattr(module, "_MINI_FROM", 100)
    monkeypatch.setattr(module, "_BLOCK", 64)
    vectors = np.random.default_rng(1).standard_normal((300, 6)).astype(np.float32)
    centroids = fit_centroids(vectors, 2, 4, 1)
    assert np.array_equal(centroids, fit_centroids(vectors, 2, 4, 1))
    assert np.array_equal(assign_codes(vectors, centroids), coded_by_loops(vectors, centroids))


def test_codes_of_a_model_are_stored_once_and_new_texts_are_coded_alike(
    tmp_path, tables, home, tiny, monkeypatch
):
    recipe = CodeRecipe(2, 3, vectors=source_of(tiny))
    features = open_features(recipe, tables, home)
    assert features.sizes.values == (4, 4)
    codes = features.gather(ALL)
    assert (codes.shape, codes.dtype) == ((N, 2), torch.int64)
    assert codes.min() >= 1
    features.save_assets(tmp_path)
    assert {f.name for f in tmp_path.iterdir() if f.is_file()} == {
        "centroids.safetensors",
        "language_model.json",
    }
    new = features_of_texts(recipe, tmp_path, ITEMS[::-1])
    assert torch.equal(new.gather(ALL), codes.flip(0))
    from legoray.model import storedcodes

    monkeypatch.setattr(storedcodes, "fit_centroids", None)
    assert torch.equal(open_features(recipe, tables, home).gather(ALL), codes)
    (tmp_path / "centroids.safetensors").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"centroids\.safetensors"):
        features_of_texts(recipe, tmp_path, ITEMS)


def test_codes_are_made_again_when_anything_that_decides_them_changes(tmp_path, tables, home):
    file = write(tmp_path / "v.npy")
    first = CodeRecipe(2, 3, vectors=VectorSource(file=str(file)))

    def folders():
        return {f.name for f in (home / "codes").iterdir() if f.name != ".locks"}

    open_features(first, tables, home)
    assert len(folders()) == 1
    for number, changes in enumerate([{"levels": 1}, {"codes": 2}, {"seed": 1}], 2):
        told = {"levels": 2, "codes": 3, "vectors": first.vectors, **changes}
        open_features(CodeRecipe(**told), tables, home)
        assert len(folders()) == number
    write(file, vectors=VECTORS[::-1])  # the same name, other vectors
    open_features(first, tables, home)
    assert len(folders()) == 5
    for name in folders():
        os.truncate(home / "codes" / name / "codes.safetensors", 20)
    with pytest.raises(DamagedError, match="these stored codes are damaged"):
        open_features(first, tables, home)
    shutil.rmtree(home / "codes")
    assert open_features(first, tables, home).item_count == N + 1


def test_codes_of_a_file_are_read_by_key(tmp_path, tables, home):
    codes = np.random.default_rng(2).integers(1, 6, (N, 3))
    order = np.random.default_rng(0).permutation(N)
    write_codes(tmp_path / "c.parquet", [KEYS[n] for n in order], codes[order])
    recipe = CodeRecipe(3, 5, file=str(tmp_path / "c.parquet"))
    features = open_features(recipe, tables, home)
    assert torch.equal(features.gather(ALL), torch.from_numpy(codes))
    assert features.sizes.values == (6, 6, 6)
    with pytest.raises(InputError, match="it cannot score them"):
        features_of_texts(recipe, tmp_path, ITEMS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda keys, codes: (keys, codes[:, :2]), "its items have 2 codes, the settings say 3"),
        (lambda keys, codes: (keys, codes * 0), "item i1 has the codes [0, 0, 0], expected 1 to 5"),
        (lambda keys, codes: (keys, codes + 5), "(9 items are like it)"),
        (lambda keys, codes: (keys[1:], codes[1:]), "1 of 9 items have no codes, such as i1"),
        (lambda keys, codes: (["i2", *keys[1:]], codes), "1 keys stand twice, such as i2"),
    ],
)
def test_wrong_codes_are_named(tmp_path, change, said):
    keys, codes = change(KEYS, np.ones((N, 3), dtype=np.int64))
    write_codes(tmp_path / "c.parquet", keys, codes)
    with pytest.raises(InputError) as caught:
        read_codes(tmp_path / "c.parquet", KEYS, 3, 5)
    assert said in str(caught.value)


def test_a_file_without_codes_is_refused(tmp_path):
    for content, said in [
        ({"key": KEYS, "codes": ["x"] * N}, "lists of whole numbers were expected"),
        ({"key": KEYS}, "has no column 'codes'"),
        ({"key": KEYS, "codes": [None, *[[1]] * (N - 1)]}, "1 rows have no 'codes'"),
    ]:
        pq.write_table(pa.table(content), tmp_path / "c.parquet")
        with pytest.raises(InputError, match=said):
            read_codes(tmp_path / "c.parquet", KEYS, 1, 5)
    with pytest.raises(InputError, match="no such file"):
        read_codes(tmp_path / "d.parquet", KEYS, 1, 5)


# --- joined ---


def test_joined_features_are_those_of_the_parts(tmp_path, tables, home, tiny):
    parts = (
        TokenRecipe("words", ("title",), 8),
        IdRecipe(),
        JoinedRecipe((VectorRecipe(source_of(tiny)), CategoryRecipe(("title",)))),
    )
    features = open_features(JoinedRecipe(parts), tables, home)
    alone = [open_features(part, tables, home) for part in parts]
    assert features.sizes.parts == tuple(own.sizes for own in alone)
    assert features.item_count == N + 1
    found = features.gather(ALL)
    assert torch.equal(found.parts[0].ids, alone[0].gather(ALL).ids)
    assert torch.equal(found.parts[1], ALL)
    assert torch.equal(found.parts[2].parts[0], alone[2].parts[0].gather(ALL))
    assert torch.equal(features.lengths(ALL), alone[0].lengths(ALL).clamp(min=1))
    features.save_assets(tmp_path / "model")
    names = {str(f.relative_to(tmp_path / "model")) for f in (tmp_path / "model").rglob("*.json")}
    assert names == {
        "input-0/tokenizer.json",
        "input-2/input-0/language_model.json",
        "input-2/input-1/categories.json",
    }
    new = features_of_texts(JoinedRecipe(parts), tmp_path / "model", ITEMS[:4])
    given = new.gather(ALL[:4])
    assert given.parts[1].tolist() == [0] * 4  # a new item has no number
    assert torch.equal(given.parts[0].ids, alone[0].gather(ALL[:4]).ids)
    torch.testing.assert_close(given.parts[2].parts[0], found.parts[2].parts[0][:4])
    assert torch.equal(given.parts[2].parts[1], found.parts[2].parts[1][:4])


def test_attributes_may_share_one_vocabulary(tables, home):
    both = ("title", "abstract")
    joined = open_features(TokenRecipe("words", both, 16), tables, home)
    alone = [
        open_features(TokenRecipe("words", (name,), 16, vocabulary=both), tables, home)
        for name in both
    ]
    assert {own.sizes.vocabulary for own in alone} == {joined.sizes.vocabulary}
    whole = joined.gather(ALL)
    for place, own in enumerate(alone):
        tokens = own.gather(ALL)
        for row in range(N):
            mine = whole.ids[row][whole.mask[row] & (whole.attribute[row] == place)]
            assert torch.equal(tokens.ids[row][tokens.mask[row]], mine)
    apart = open_features(TokenRecipe("words", ("title",), 16), tables, home)
    assert apart.sizes.vocabulary < joined.sizes.vocabulary


def test_nothing_is_pooled_twice_for_vectors_and_their_codes(tables, home, tiny, monkeypatch):
    from legoray.llm import build

    passes = []
    run = build.compute_block
    monkeypatch.setattr(build, "compute_block", lambda *a: passes.append(a) or run(*a))
    open_features(VectorRecipe(source_of(tiny)), tables, home)
    open_features(CodeRecipe(2, 3, vectors=source_of(tiny)), tables, home)
    open_features(CodeRecipe(1, 3, vectors=source_of(tiny)), tables, home)
    assert len(passes) == 1


# --- commands ---


def test_the_commands_write_what_the_operators_read(tmp_path, sample_tables, monkeypatch, tiny):
    from typer.testing import CliRunner

    from legoray.cli import app
    from legoray.data.load import load_items

    monkeypatch.setenv("LEGORAY_HOME", str(sample_tables.parents[1]))
    yaml = str(Path(__file__).parents[2] / "datasets" / "mind_sample.yaml")
    vectors, codes = tmp_path / "v.safetensors", tmp_path / "c.parquet"
    run = CliRunner().invoke
    made = run(app, ["vectors", yaml, "--model", tiny, "--length", "8", "--output", str(vectors)])
    assert made.exit_code == 0, made.output
    keys = load_items(sample_tables, ["key"])["key"].to_pylist()
    assert read_vectors(vectors, keys).shape == (len(keys), 16)
    settings = ["--levels", "2", "--codes", "6", "--output", str(codes)]
    made = run(app, ["codes", yaml, "--vectors", str(vectors), *settings])
    assert made.exit_code == 0, made.output
    found = read_codes(codes, keys, 2, 6)
    other = tmp_path / "d.parquet"
    settings = ["--levels", "2", "--codes", "6", "--output", str(other)]
    made = run(app, ["codes", yaml, "--model", tiny, "--length", "8", *settings])
    assert made.exit_code == 0, made.output
    assert np.array_equal(read_codes(other, keys, 2, 6), found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vectors", "x.yaml", "--output", "v.npy"], "expected .safetensors"),
        (["vectors", "x.yaml", "--output", "v.safetensors", "--pooling", "max"], "'cls' or 'last'"),
        (["vectors", "x.yaml", "--output", "v.safetensors", "--model", "minilmm"], "'minilm'"),
        (["codes", "x.yaml", "--output", "c.csv"], "expected .parquet"),
        (["codes", "x.yaml", "--output", "c.parquet"], "exactly one of vectors, model"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(arguments, said):
    from typer.testing import CliRunner

    from legoray.cli import app

    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)
