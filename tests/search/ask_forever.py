"""A process that searches until it is killed: `python ask_forever.py <folder>`.

It keeps two trials running at once and says on stdout what it does, one word and number per line.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from space_cases import make_space

from legoray.search.asktell import AskTell


def main(folder: Path) -> None:
    study = AskTell(make_space(folder), folder / "study.journal", name="killed")
    study.resume()
    running: list[int] = []
    while True:
        found = study.ask()
        assert found is not None
        running.append(found.number)
        print("began", found.number, flush=True)
        if len(running) == 2:
            number = running.pop(0)
            study.report(number, 1, {"auc": 0.5 + number / 1000})
            study.conclude(number, "completed")
            print("ended", number, flush=True)
        time.sleep(0.01)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
