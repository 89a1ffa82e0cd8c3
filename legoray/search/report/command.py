"""Writing the report of a sweep."""

from __future__ import annotations

from pathlib import Path

from legoray.errors import InputError, Problem
from legoray.pages.write import check_place, write_page

FILE = "report.html"


def write_reports(folder: Path, to: Path | None = None) -> list[Path]:
    """As `write_report`, of each data set's sweep where the folder holds several.

    Raises:
        InputError: as there; or one file is asked for several reports.
    """
    below = sorted(path.parent for path in folder.glob("*/sweep.json"))
    if (folder / "sweep.json").is_file() or not below:
        return [write_report(folder, to)]
    if to is not None and len(below) > 1:
        message = f"one file was given for the reports of {len(below)} data sets"
        known = ", ".join(map(str, below))
        raise InputError(Problem(f"--html {to}", message, f"name one of {known}"))
    return [write_report(one, to) for one in below]


def write_report(folder: Path, to: Path | None = None) -> Path:
    """Write a sweep's report; it may be running, interrupted, or without a single trial.

    Args:
        folder: the sweep's.
        to: a file; `report.html` in the folder where none is given.

    Returns:
        The file.

    Raises:
        InputError: the folder is not a sweep's, is damaged, or the page cannot be written.
    """
    from legoray.search.report.gather import gather
    from legoray.search.report.page import report_page

    if not (folder / "sweep.json").is_file():
        hint = "a folder such as sweeps/<name>, with a sweep.json"
        found = [*Path("sweeps").glob("*/sweep.json"), *folder.glob("*/sweep.json")]
        known = sorted(str(path.parent) for path in found)
        hint = f"there are: {', '.join(known[:8])}" if known else hint
        raise InputError(Problem(str(folder), "is not a sweep's folder", hint))
    place = to or folder / FILE
    check_place(place, "--html" if to else "the report")
    write_page(place, report_page(gather(folder)))
    return place
