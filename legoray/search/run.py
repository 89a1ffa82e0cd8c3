"""The search from the space's file to the closing lines: what `run_search.py` calls."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.console import Console

from legoray.data.prepare import Prepared
from legoray.search.budget import budget_of
from legoray.search.faraway import check_storage, sweep_folder
from legoray.search.onerun import TRAIN, Search, print_line
from legoray.search.opening import open_sweep
from legoray.search.several import (
    check_all,
    prepare_all,
    refuse_one,
    refuse_several,
    search_all,
)
from legoray.search.space import Space, read_spaces
from legoray.search.sweep import Sweep


def run_search(
    space_file: Path,
    *,
    address: str | None = None,
    trials: int | None = None,
    fresh: bool = False,
    folder: str | Path | None = None,
    check_only: bool = False,
    console: Console,
    train_fn: str = TRAIN,
    reuse: bool = True,
) -> int:
    """Search a space, or go on with a search that was interrupted.

    Args:
        space_file: the search space.
        address: of a Ray cluster; a local one is started where it is not given.
        trials: in all, instead of the file's number.
        fresh: set an earlier sweep of this name aside.
        folder: of the sweep, a path or an address; `sweeps/<name>` where it is not given.
        check_only: validate, build every corner and run a batch of each, nothing more.
        console: where to print.
        train_fn: `module:function` that trains a job; it must be importable on every node.
        reuse: take results of earlier sweeps, where the file does not say otherwise.

    Returns:
        The exit code: 0 done, 1 nothing could be trained, 130 interrupted.

    Raises:
        InputError: a mistake of the user's, anywhere on the way.
    """
    say = partial(print_line, console)
    spaces = read_spaces(Path(space_file))
    name = spaces[0].document.data["name"]
    place = sweep_folder(folder, name)
    check_storage(place)
    prepared = prepare_all(spaces, say)
    if check_only:
        check_all(spaces, prepared, say)
        say(f"{spaces[0].document.path} is fine")
        return 0

    def opened(space: Space, ready: Prepared, where: Path, fresh: bool = False) -> Sweep:
        return open_sweep(space, where, ready.tables, ready.manifest, fresh=fresh)

    def search(sweep: Sweep, space: Space, ready: Prepared, checked: bool = False) -> int:
        try:
            sweep.interrupt()
            budget = budget_of(space.config.search, trials)
            one = Search(space, ready, sweep, console, address, budget, folder, train_fn, reuse)
            one.checked = checked
            return one.run()
        finally:
            sweep.close()

    if not spaces[0].several:
        refuse_several(place)
        return search(opened(spaces[0], prepared[0], place, fresh), spaces[0], prepared[0])
    places = _places(place, folder, name, prepared)
    refuse_one(place)
    return search_all(spaces, prepared, places, opened, search, fresh=fresh, console=console)


def _places(
    place: Path, folder: str | Path | None, name: str, prepared: list[Prepared]
) -> list[Path]:
    """The folder of each data set's own sweep, below the one that all of them share."""
    names = [ready.manifest.name for ready in prepared]
    if folder is None:
        return [place / own for own in names]
    base = str(folder).rstrip("/")
    return [sweep_folder(f"{base}/{own}", name) for own in names]
