"""The loop inside a real TorchTrainer, and what its workers share."""

import pytest
import torch
from train_corpora import make_corpus, make_job, trial, write_tables

from legoray.data.recipes import IdRecipe, TokenRecipe
from legoray.rayinit import quiet_environment
from legoray.train.cache import ProcessCache, shared_features
from legoray.train.job import Runtime
from legoray.train.loop import train
from legoray.train.worker import torch_trainer_loop


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    quiet_environment()
    import ray

    folder = tmp_path_factory.mktemp("ray")
    ray.init(num_cpus=3, log_to_driver=False, logging_level="ERROR", _temp_dir=str(folder))
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.cluster
def test_two_torch_trainer_workers_train_as_one(cluster, tmp_path, monkeypatch):
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    corpus = make_corpus()
    tables = write_tables(tmp_path / "tables", corpus)
    config = trial("id", "additive", "dot", epochs=2)
    alone = train(make_job(tables, tmp_path / "1", config), Runtime(corpus), lambda metrics: None)
    job = make_job(tables, tmp_path / "2", config)
    result = TorchTrainer(
        torch_trainer_loop,
        train_loop_config={"job": job.model_dump_json(), "corpus": [cluster.put(corpus)]},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="two", storage_path=str(tmp_path / "storage")),
    ).fit()
    epochs = result.return_value["epochs"]
    assert len(epochs) == 2
    for first, second in zip(alone.epochs, epochs, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-4)
        assert second["auc"] == pytest.approx(first["auc"], abs=1e-3)
    assert (tmp_path / "2" / "best" / "model.safetensors").exists()


def test_features_are_opened_once_per_process(tmp_path):
    tables = write_tables(tmp_path / "tables", make_corpus())
    recipe = TokenRecipe("words", ("title",), 4)
    first = shared_features(recipe, tables, tmp_path)
    assert shared_features(TokenRecipe("words", ("title",), 4), tables, tmp_path) is first
    assert shared_features(TokenRecipe("words", ("title",), 5), tables, tmp_path) is not first
    assert torch.equal(
        shared_features(IdRecipe(), tables, tmp_path).gather(torch.tensor([3])), torch.tensor([3])
    )


def test_the_cache_forgets_what_was_used_longest_ago():
    cache, made = ProcessCache(2), []
    for key in ("a", "b", "a", "c", "a", "b"):
        cache.get(key, lambda key=key: made.append(key))
    assert made == ["a", "b", "c", "b"]
