"""What the processes of the tests of several workers do."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import distributed as dist
from torch import multiprocessing
from train_corpora import against_all, make_corpus, make_job, trial, with_slices

from legoray.errors import InfeasibleError
from legoray.train import loop
from legoray.train.job import Runtime, Stopped
from legoray.train.loop import train


def steady(name):
    """A part without dropout: its random numbers differ from worker to worker."""
    return {"name": name, "dropout": 0.0}


TEXT, CROSS, TARGET = steady("pooling"), steady("dcn"), steady("din")
CASES = {
    "matching": trial("id", "gru", "dot", epochs=2),
    "ranking": trial(TEXT, "additive", CROSS, task="ranking", epochs=2, batch_size=33),
    "sequence": trial(TEXT, "none", TARGET, epochs=1, accumulate=2, learning_rate=0.002),
    "against-all": trial("id", "gru", "dot", epochs=2),
    "empty-shares": trial("id", "pooling", "dot", epochs=1, batch_size=2, max_history=4),
    "stopped": trial(epochs=3),
    "diverged": trial("id", "pooling", "dnn", learning_rate=1.0, clip_norm=None, weight_decay=1e30),
    "scarce": trial(epochs=1),
}


def stop(metrics):
    raise Stopped


def run_case(name, config, tables, folder, runtime):
    """The outcome of a case, as plain data."""
    if name == "against-all":
        runtime = replace(runtime, corpus=with_slices(against_all(runtime.corpus)))
    opened = loop.open_model
    if name == "scarce" and runtime.world > 1 and runtime.rank == 1:
        loop.open_model = lambda job, runtime: scarce(opened(job, runtime))
    try:
        report = stop if name == "stopped" else lambda metrics: None
        job = make_job(tables, folder / name, config, test=True)
        return train(job, runtime, report).model_dump()
    except InfeasibleError as error:
        return {"reason": str(error)}
    finally:
        loop.open_model = opened


def scarce(model):
    """A model that has memory for two samples only."""
    forward = model.recommender.forward

    def limited(batch):
        if len(batch.candidates) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(batch)

    model.recommender.forward = limited
    return model


def run_all(rank, world, tables, folder):
    """Train every case, and write the outcomes of this worker."""
    torch.set_num_threads(1)
    if world > 1:
        meeting = f"file://{folder}/meeting"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    runtime = Runtime(make_corpus(), rank=rank, world=world)
    cases = CASES.items()
    found = {name: run_case(name, case, tables, folder, runtime) for name, case in cases}
    Path(folder / f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    if world > 1:
        dist.destroy_process_group()


def outcomes(world, tables, folder):
    """The outcomes of all cases, of each of `world` workers."""
    folder.mkdir()
    if world == 1:
        run_all(0, 1, tables, folder)
    else:
        multiprocessing.spawn(run_all, (world, tables, folder), nprocs=world)
    files = [folder / f"{rank}.json" for rank in range(world)]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]
