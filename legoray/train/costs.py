"""What a model costs besides its training time."""

from __future__ import annotations

import statistics
import time

import torch

from legoray.model.base import History, Shape
from legoray.model.inputs import Inputs
from legoray.model.recommender import Recommender

CANDIDATES = 1000
REPEATS = 10


@torch.no_grad()
def latency_ms(
    recommender: Recommender, *, shape: Shape, inputs: Inputs, device: torch.device
) -> float:
    """Milliseconds to score 1,000 candidates for one user, representations being cached.

    The median of some repetitions on random vectors and a full history: only the predictor runs.
    """
    training = recommender.training
    recommender.eval()
    generator = torch.Generator().manual_seed(0)
    length = shape.max_history
    vectors = torch.randn(1, CANDIDATES + length, shape.hidden_size, generator=generator).to(device)
    candidates = vectors[:, :CANDIDATES]
    items = torch.arange(length) % (shape.item_count - 1) + 1
    own = inputs.of_history(items)
    history = History(
        vectors=vectors[:, CANDIDATES:],
        mask=torch.ones(1, length, dtype=torch.bool, device=device),
        users=torch.zeros(1, dtype=torch.int64, device=device),
        inputs=own if own is None else own.to(device),
        items=torch.arange(1, length + 1, device=device)[None],
    )
    fields = torch.zeros(1, CANDIDATES, len(shape.fields), dtype=torch.int64, device=device)
    user = recommender.encode_users(history)
    seconds = []
    for _ in range(REPEATS + 2):
        began = time.perf_counter()
        recommender.score(user, candidates, fields)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    recommender.train(training)
    return 1000 * statistics.median(seconds[2:])
