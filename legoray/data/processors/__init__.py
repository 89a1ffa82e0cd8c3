"""The processors by name. A new family is one file here and one line in this table."""

from __future__ import annotations

import importlib

from legoray.data.processors.base import Processor
from legoray.errors import InputError, unknown

PROCESSORS = {
    "adressa": "legoray.data.processors.adressa:Adressa",
    "amazon": "legoray.data.processors.amazon:Amazon",
    "bookcrossing": "legoray.data.processors.bookcrossing:BookCrossing",
    "ebnerd": "legoray.data.processors.ebnerd:Ebnerd",
    "feedback": "legoray.data.processors.own_feedback:OwnFeedback",
    "goodbooks": "legoray.data.processors.goodbooks:Goodbooks",
    "goodreads": "legoray.data.processors.goodreads:Goodreads",
    "hm": "legoray.data.processors.hm:HM",
    "lastfm": "legoray.data.processors.lastfm:LastFm",
    "microlens": "legoray.data.processors.microlens:MicroLens",
    "mind": "legoray.data.processors.mind:Mind",
    "movielens": "legoray.data.processors.movielens:MovieLens",
    "netflix": "legoray.data.processors.netflix:Netflix",
    "own": "legoray.data.processors.own:Own",
    "pens": "legoray.data.processors.pens:Pens",
    "pog": "legoray.data.processors.pog:POG",
    "sequences": "legoray.data.processors.sequences:Sequences",
    "steam": "legoray.data.processors.steam:Steam",
    "yelp": "legoray.data.processors.yelp:Yelp",
}


def processor_class(name: str, where: str = "") -> type[Processor]:
    """The processor of a name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PROCESSORS:
        raise InputError(unknown("processor", name, list(PROCESSORS), where))
    module, _, attribute = PROCESSORS[name].partition(":")
    found: type[Processor] = getattr(importlib.import_module(module), attribute)
    return found
