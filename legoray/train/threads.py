"""As many threads as a training was given cores, whichever library starts them."""

from __future__ import annotations

import os

import pyarrow as pa
import torch


def limit_threads(count: int) -> None:
    """Let torch, the BLAS libraries, Arrow and the tokenizers use `count` threads each.

    They do not compute at the same time, so that trials times `count` threads fill the cores that
    the trials were given and no more. Threads that wait for files (Arrow's others) are not limited.
    """
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(count)
    threadpool_limits(count)
    pa.set_cpu_count(count)
    # read when a tokenizer is first used; one that was used keeps its threads
    os.environ["RAYON_NUM_THREADS"] = str(count)
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = str(count)
