"""What a model costs besides its training time."""

from __future__ import annotations

import statistics
import time

import torch

from legoray.model.recommender import Recommender

CANDIDATES = 1000
REPEATS = 10


@torch.no_grad()
def latency_ms(
    recommender: Recommender, *, hidden_size: int, max_history: int, device: torch.device
) -> float:
    """Milliseconds to score 1,000 candidates for one user, representations being cached.

    The median of some repetitions on random vectors and a full history: only the predictor runs.
    """
    training = recommender.training
    recommender.eval()
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, CANDIDATES + max_history, hidden_size, generator=generator).to(device)
    history, candidates = vectors[:, CANDIDATES:], vectors[:, :CANDIDATES]
    mask = torch.ones(1, max_history, dtype=torch.bool, device=device)
    user = recommender.encode_users(history, mask)
    seconds = []
    for _ in range(REPEATS + 2):
        began = time.perf_counter()
        recommender.score(user, candidates)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    recommender.train(training)
    return 1000 * statistics.median(seconds[2:])
