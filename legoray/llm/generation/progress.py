"""How far the writing is: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Counts what was written, and tells the rate and the time left."""

    def __init__(self, name: str, total: int, console: Console) -> None:
        """Progress of `total` texts of an attribute."""
        self.counts: Counter[str] = Counter()
        self.done = 0
        self._name, self._total, self._console = name, total, console
        self._started = time.monotonic()
        self._told = self._started

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show it until the block ends."""
        if not self._console.is_terminal:
            yield
            return
        show = lambda: Text(self.line())  # noqa: E731
        with Live(console=self._console, get_renderable=show, refresh_per_second=2, transient=True):
            yield

    def add(self, counts: Counter[str], texts: int) -> None:
        """So many more texts are on the disk."""
        self.counts += counts
        self.done += texts
        now = time.monotonic()
        if not self._console.is_terminal and now - self._told > SECONDS_BETWEEN_LINES:
            self._told = now
            self._console.print(self.line(), markup=False, soft_wrap=True)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Texts per second."""
        return self.done / max(self.seconds, 1e-9)

    def line(self) -> str:
        """Where it stands."""
        parts = [f"{self._name}: {self.done:,} of {self._total:,}"]
        parts += told(self.counts)
        if self.done:
            left = (self._total - self.done) / self.rate
            parts += [f"{self.rate:.1f}/s", f"about {span(left)} left"]
        return " · ".join(parts)


def told(counts: Counter[str]) -> list[str]:
    """Counts in words; what did not happen is left out."""
    words = {
        "refused": "refused",
        "empty": "empty",
        "too_long": "not asked: too long for the model",
        "cut": "cut off at the token limit",
    }
    return [f"{counts[name]:,} {word}" for name, word in words.items() if counts[name]]


def span(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
