"""A training uses the threads that it was given."""

import json
import subprocess
import sys

SCRIPT = """
import json
import numpy, pyarrow, torch
from threadpoolctl import threadpool_info
from legoray.train.threads import limit_threads

limit_threads(1)
torch.zeros(64, 64) @ torch.zeros(64, 64)
numpy.zeros((64, 64)) @ numpy.zeros((64, 64))
pools = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
print(json.dumps({"torch": torch.get_num_threads(), "arrow": pyarrow.cpu_count(), **pools}))
"""


def test_every_library_has_as_many_threads_as_it_was_given():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    assert len(found) > 2
    assert set(found.values()) == {1}
