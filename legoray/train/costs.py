"""What a model costs besides its training time."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

import torch

from legoray.model.base import History, Shape
from legoray.model.inputs import Inputs
from legoray.model.recommender import Recommender

CANDIDATES = 1000
WARM_UP = 3  # requests that are not timed
REPEATS = 21  # that are, unless they take long
FEWEST, LONGEST = 5, 1.0  # requests that are timed in any case, seconds after which they suffice


def latency_ms(
    recommender: Recommender, *, shape: Shape, inputs: Inputs, device: torch.device
) -> float:
    """Milliseconds to answer one request: score 1,000 candidates for one user, on one thread.

    As a server does it whose items are encoded already: the vectors of the 1,000 candidates and of
    the user's items (as many as the model reads) are at hand, and what the behavior operator reads
    of these items. Timed are the behavior operator and the predictor, float32, batch of one, the
    median of 21 requests after three that warm up, or of fewer, five at least, once a second has
    gone by. The vectors are random: a time does not depend on their values, nor on the weights'.
    """
    request = _request(recommender, shape=shape, inputs=inputs, device=device)
    training = recommender.training
    recommender.eval()
    try:
        with torch.no_grad(), _one_thread():
            return 1000 * _median_seconds(request)
    finally:
        recommender.train(training)


def _request(
    recommender: Recommender, *, shape: Shape, inputs: Inputs, device: torch.device
) -> Callable[[], None]:
    """What is timed: one user with a full history, and 1,000 candidates."""
    generator = torch.Generator().manual_seed(0)
    length = shape.max_history
    vectors = torch.randn(1, CANDIDATES + length, shape.hidden_size, generator=generator).to(device)
    own = inputs.of_history(torch.arange(length) % (shape.item_count - 1) + 1)
    history = History(
        vectors=vectors[:, CANDIDATES:],
        mask=torch.ones(1, length, dtype=torch.bool, device=device),
        users=torch.zeros(1, dtype=torch.int64, device=device),
        inputs=own if own is None else own.to(device),
        items=torch.arange(1, length + 1, device=device)[None],
    )
    fields = torch.zeros(1, CANDIDATES, len(shape.fields), dtype=torch.int64, device=device)

    def answer() -> None:
        user = recommender.encode_users(history)
        recommender.score(user, vectors[:, :CANDIDATES], fields)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return answer


def _median_seconds(request: Callable[[], None]) -> float:
    for _ in range(WARM_UP):
        request()
    seconds: list[float] = []
    while len(seconds) < REPEATS and (len(seconds) < FEWEST or sum(seconds) < LONGEST):
        began = time.perf_counter()
        request()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch's, whatever the training had: times of trials compare then."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
