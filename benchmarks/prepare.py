"""Preparing a data set, measured: seconds, rows a second and peak memory at 1x, 3x and 10x.

    python benchmarks/prepare.py [--part mind tokens feedback] [--scales 1 3 10] [--alone]

mind      files in MIND's format, of the size and shape of MIND-small times each scale (157 thousand
          train impressions, 73 thousand dev, 65 thousand news, 94 thousand users), made tables in
          one process, and at 1x by Ray Data too (not with --alone); then they are loaded as arrays
tokens    titles and abstracts of 65 thousand news, split into word pieces by one thread of one
          process, and by Ray Data over two cores
feedback  ratings in MovieLens's format, 2 and 10 million: bytes of memory per rating

Each measurement has a process of its own. Memory is the greatest sum over it and its children of
what is theirs, a share of what they share (PSS), looked at twenty times a second; of one process
alone what the system counted (ru_maxrss). The files (2.3 GB at 10x) are written into a temporary
folder (--folder says where) and deleted after. Processor seconds are those of all these processes,
without what looking at them takes; on a busy machine they say more than seconds do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratios import add_json, write_ratios

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SCALES = (1.0, 3.0, 10.0)
RATINGS = (2_000_000, 10_000_000)
NEEDED = 5e9  # bytes of disk at 10x: files, tables, and what is made on the way
ATTRIBUTES, LENGTHS = ("title", "abstract"), (30, 100)


class Peak:
    """The memory and processor seconds of this process and its children while a block runs."""

    def __enter__(self) -> Peak:
        import psutil

        self._own, self._stop = psutil.Process(), threading.Event()
        self._cpu: dict[int, float] = {}
        self._watching = 0.0
        self._before = time.process_time()
        self.bytes = 0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self._stop.set()
        self._thread.join()
        self.bytes = max(self.bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        own = time.process_time() - self._before - self._watching
        self.cpu = own + sum(self._cpu.values())

    def _look(self) -> None:
        import psutil

        while not self._stop.wait(0.05):
            total = 0
            for process in self._own.children(recursive=True):
                try:
                    total += process.memory_full_info().pss
                    times = process.cpu_times()
                    self._cpu[process.pid] = times.user + times.system
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            if total:
                self.bytes = max(self.bytes, total + self._own.memory_full_info().pss)
            self._watching = time.thread_time()


def measured(act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What an act gave, with its seconds, processor seconds and peak memory."""
    with Peak() as peak:
        found = act()
    return {**found, "seconds": peak.seconds, "cpu": peak.cpu, "memory": peak.bytes}


def prepared(processor: str, raw: Path, home: Path) -> dict[str, Any]:
    """Make tables; how many rows of interactions they have, and where they are."""
    from legoray.data.prepare import prepare

    home.mkdir(parents=True, exist_ok=True)
    os.environ["LEGORAY_HOME"] = str(home)
    config = {"name": "made", "path": str(raw), "processor": processor, "get": "made here"}
    dataset = home / "made.yaml"
    dataset.write_text(json.dumps(config))
    made = prepare(dataset, say=lambda line: None)
    rows = sum(n for name, n in made.manifest.counts.items() if name.startswith("rows/"))
    return {"rows": rows, "tables": str(made.tables), "print": made.manifest.fingerprint}


def loaded(tables: Path) -> dict[str, Any]:
    """Load tables as arrays."""
    from legoray.data.load import load_corpus

    corpus = load_corpus(tables)
    return {"rows": sum(split.rows for split in corpus.splits.values())}


def tokenized(tables: Path) -> dict[str, Any]:
    """Split the texts of all items into word pieces, as MiniLM does."""
    from legoray.data.engine import ray_wish
    from legoray.data.load import read_manifest
    from legoray.data.tokens import open_table
    from legoray.llm.load import load_tokenizer

    if ray_wish() == "always":
        from legoray.rayinit import ensure_ray

        ensure_ray(num_cpus=2)
    tokenizer = load_tokenizer("minilm").backend_tokenizer
    started = time.perf_counter()
    ids = 0
    for name, length in zip(ATTRIBUTES, LENGTHS, strict=True):
        made = open_table(tables, name, length=length, tokenizer=tokenizer, shift=0)
        ids += len(made.ids)
    seconds = time.perf_counter() - started
    texts = read_manifest(tables).counts["items"] * len(ATTRIBUTES)
    return {"rows": texts, "ids": ids, "alone": seconds}


ACTS: dict[str, Callable[..., dict[str, Any]]] = {
    "mind": lambda raw, home: prepared("mind", Path(raw), Path(home)),
    "feedback": lambda raw, home: prepared("movielens", Path(raw), Path(home)),
    "load": lambda tables: loaded(Path(tables)),
    "tokens": lambda tables: tokenized(Path(tables)),
}


def in_a_process(act: str, *arguments: Path, ray: str = "never") -> dict[str, Any]:
    """An act in a process of its own."""
    command = [sys.executable, __file__, "--act", act, *map(str, arguments)]
    environment = {**os.environ, "LEGORAY_RAY_DATA": ray}
    root = str(Path(__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def line(name: str, found: dict[str, Any], base: dict[str, Any]) -> None:
    """Print one row of the table."""
    keys = ("rows", "seconds", "cpu", "memory")
    ratios = "".join(f"{found[key] / base[key]:>9.2f}" for key in keys)
    rate = found["rows"] / found["seconds"]
    print(
        f"{name:<22}{found['rows']:>12,}{found['seconds']:>9.1f}{found['cpu']:>9.1f}{rate:>13,.0f}"
        f"{found['memory'] / 1e6:>8,.0f} {ratios}",
        flush=True,
    )


def head(what: str) -> None:
    columns = f"{'rows':>12}{'seconds':>9}{'cpu':>9}{'rows/s':>13}{'MB':>8} "
    print(f"\n{what:<22}{columns}{'rows x':>9}{'time x':>9}{'cpu x':>9}{'memory x':>9}")


def mind(folder: Path, scales: list[float], *, alone: bool) -> dict[str, float]:
    """Tables of generated MIND at each scale, and what loading takes; the last one's ratios."""
    from made.mind import write_mind

    head("MIND to tables")
    base: dict[str, Any] = {}
    loads: list[tuple[str, dict[str, Any]]] = []
    for scale in scales:
        raw, home = folder / "raw", folder / "home"
        write_mind(raw, scale)
        found = in_a_process("mind", raw, home)
        base = base or found
        line(f"{scale:g}x", found, base)
        loads.append((f"{scale:g}x", in_a_process("load", Path(found["tables"]))))
        if scale == scales[0] and not alone:
            shutil.rmtree(home)
            by_ray = in_a_process("mind", raw, home, ray="always")
            assert by_ray["print"] == found["print"], "Ray Data made other tables"
            line(f"{scale:g}x by Ray Data", by_ray, base)
        shutil.rmtree(raw)
        shutil.rmtree(home)
    head("tables to arrays")
    for name, load in loads:
        line(name, load, loads[0][1])
    x = {key: found[key] / base[key] for key in ("rows", "cpu", "memory")}
    return {"prepare/time-x-of-rows-x": x["cpu"] / x["rows"], "prepare/memory-x": x["memory"]}


def tokens(folder: Path, scales: list[float], *, alone: bool) -> dict[str, float]:
    """The same texts tokenized in one process and by Ray Data."""
    from made.mind import write_mind

    raw, home = folder / "raw", folder / "home"
    write_mind(raw, scales[0])
    tables = Path(in_a_process("mind", raw, home)["tables"])
    head("texts to tokens")
    base = in_a_process("tokens", tables)
    base["seconds"] = base.pop("alone")  # without the start of Ray and of the tokenizer
    line("one process", base, base)
    if alone:
        return {}
    shutil.rmtree(tables / "tokens")
    by_ray = in_a_process("tokens", tables, ray="always")
    assert by_ray["ids"] == base["ids"], "Ray Data made other tokens"
    by_ray["seconds"] = by_ray.pop("alone")
    line("Ray Data, 2 cores", by_ray, base)
    return {"prepare/tokens-by-ray-x": by_ray["seconds"] / base["seconds"]}


def feedback(folder: Path, scales: list[float], *, alone: bool) -> dict[str, float]:
    """Tables of generated ratings; bytes per rating as the difference of two sizes."""
    from made.ratings import write_ratings

    head("ratings to tables")
    found = []
    for events in RATINGS:
        write_ratings(folder / "raw", events)
        found.append(in_a_process("feedback", folder / "raw", folder / "home"))
        line(f"{events:,} ratings", found[-1], found[0])
        shutil.rmtree(folder / "raw")
        shutil.rmtree(folder / "home")
    each = (found[1]["memory"] - found[0]["memory"]) / (RATINGS[1] - RATINGS[0])
    print(f"{each:.0f} bytes of memory per rating")
    return {"prepare/bytes-of-a-rating": each}


PARTS = {"mind": mind, "tokens": tokens, "feedback": feedback}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--scales", nargs="+", type=float, default=list(SCALES))
    parser.add_argument("--alone", action="store_true", help="without Ray Data")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    add_json(parser)
    parser.add_argument("--act", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.act:
        print(json.dumps(measured(lambda: ACTS[given.act[0]](*given.act[1:]))))
        return
    with tempfile.TemporaryDirectory(prefix="prepare-", dir=given.folder) as folder:
        free = shutil.disk_usage(folder).free
        if free < NEEDED * max(given.scales) / 10:
            raise SystemExit(f"{folder}: {free / 1e9:.1f} GB are free, too few for these scales")
        ratios: dict[str, float] = {}
        for part in given.part:
            own = Path(folder, part)
            own.mkdir()
            ratios |= PARTS[part](own, given.scales, alone=given.alone)
        write_ratios(given.json, ratios)


if __name__ == "__main__":
    main()
