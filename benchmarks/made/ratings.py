"""Ratings in the format of MovieLens's CSV files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pv

STEP = 1 << 20  # ratings written at a time
MOVIES = 10_681  # as MovieLens 10M
RATINGS_PER_USER = 143
START, END = 789_652_009, 1_231_131_736  # its first and last second


def write_ratings(folder: Path, events: int) -> None:
    """Write movies.csv and ratings.csv with so many ratings, in no order."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    numbers = np.arange(1, MOVIES + 1)
    titles = [f"Movie {number} ({1950 + number % 60})" for number in numbers]
    kinds = ["Comedy|Drama" if number % 2 else "Action" for number in numbers]
    movies = pa.table({"movieId": numbers, "title": titles, "genres": kinds})
    pv.write_csv(movies, folder / "movies.csv")
    users = max(events // RATINGS_PER_USER, 1)
    with (folder / "ratings.csv").open("wb") as file:
        file.write(b"userId,movieId,rating,timestamp\n")
        for start in range(0, events, STEP):
            size = min(STEP, events - start)
            columns = {
                "userId": random.integers(1, users + 1, size),
                "movieId": (random.random(size) ** 2.5 * MOVIES).astype(np.int64) + 1,
                "rating": random.integers(1, 11, size) / 2,
                "timestamp": random.integers(START, END, size),
            }
            options = pv.WriteOptions(include_header=False)
            pv.write_csv(pa.table(columns), file, options)
