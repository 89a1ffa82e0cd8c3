"""How many trials may run at once: as many as the cluster has room for, also while it grows."""

from __future__ import annotations

import time
from collections.abc import Callable

LOOK = 5.0  # seconds between two looks at the cluster
PATIENCE = 600.0  # seconds to wait for the first node that may run trials


class Room:
    """The number of trials that fit, looked up anew every few seconds.

    A node that joins makes room. One that is lost takes none away: its trials wait for the others,
    or for its return, and go on from their checkpoints.
    """

    def __init__(self, fitting: Callable[[], int], *, seconds: float = LOOK) -> None:
        """Ask `fitting` now, and again after `seconds` each.

        Raises:
            InputError: what `fitting` raises now; later it is passed over.
        """
        self._fitting, self._seconds = fitting, seconds
        self.most = fitting()
        self._looked = time.monotonic()

    def __call__(self) -> int:
        """How many trials may run."""
        if time.monotonic() - self._looked >= self._seconds:
            self._looked = time.monotonic()
            self.most = max(self.most, self._look())
        return self.most

    def _look(self) -> int:
        try:
            return self._fitting()
        except Exception:  # all other nodes may be gone for a while, or the head not answer
            return 0


def wait_for_nodes(say: Callable[[str], None], *, patience: float = PATIENCE) -> None:
    """Wait until some node has CPUs: a head that runs no trials itself may be up before the others.

    Args:
        say: told that it waits.
        patience: seconds, after which whoever wants CPUs finds that there are none.
    """
    import ray

    end, told = time.monotonic() + patience, False
    while not any(n["Resources"].get("CPU") for n in ray.nodes() if n["Alive"]):
        if time.monotonic() > end:
            return
        if not told:
            say(f"no node has CPUs for trials yet; waiting for one ({patience / 60:.0f} minutes)")
            told = True
        time.sleep(1.0)
