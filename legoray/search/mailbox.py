"""The mailbox: how a Tune trial and a long-lived train worker exchange jobs and reports.

One asyncio actor serves a whole sweep; it runs beside the driver, so that losing any other node
loses no message. A *slot* is one worker group, a *ticket* one training that is handed to it.

    trial                    mailbox                    worker (rank 0)
    submit(slot, ticket) ->  queue of the slot      ->  take(slot)
    next(slot, ticket)   <-  messages of the ticket <-  report(slot, ticket): waits for the verdict
    next(...) again, or cancel(...)  ->  verdict    ->  True: go on, False: stop
                             the last message       <-  finish(slot, ticket)

A worker that dies leaves its ticket unfinished; its successor takes the same one again. A ticket
that kills its worker again and again without a new epoch is given up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]

DEATHS = 3  # workers that a ticket may lose in a row without finishing an epoch


@dataclass
class Ticket:
    """A training that was handed to a slot."""

    name: str
    key: str
    job: str
    takes: int = 0
    fruitless: int = 0  # takes since the last report
    cancelled: bool = False
    done: bool = False
    messages: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    answered: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Slot:
    """The tickets that wait for one worker group, the running one first."""

    queue: deque[Ticket] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False


class Mailbox:
    """Jobs in one direction, reports in the other. Every method returns at once or times out."""

    def __init__(self, patience: float = 5.0) -> None:
        """`patience`: seconds a worker waits for the verdict on an epoch before it goes on."""
        self._slots: dict[str, Slot] = {}
        self._patience = patience

    def _slot(self, slot: str) -> Slot:
        return self._slots.setdefault(slot, Slot())

    def _ticket(self, slot: str, name: str) -> Ticket | None:
        return next((t for t in self._slot(slot).queue if t.name == name), None)

    # --- the trial's side

    async def submit(self, slot: str, name: str, key: str, job: str) -> None:
        """Hand a job to a slot. Whoever else still trains the same key is told to stop."""
        for other in self._slots.values():
            for ticket in other.queue:
                if ticket.key == key:
                    self._cancel(ticket)
        place = self._slot(slot)
        place.queue.append(Ticket(name, key, job))
        place.changed.set()

    async def next(self, slot: str, name: str, timeout: float) -> Message | None:
        """The next message of a ticket, or None after `timeout` seconds.

        Asking for the next message is the verdict 'go on' to the one before it.
        """
        ticket = self._ticket(slot, name)
        if ticket is None or ticket.cancelled:
            return {"status": "failed", "reason": "the slot has lost this training"}
        if ticket.messages.empty():
            ticket.answered.set()
        try:
            message = await asyncio.wait_for(ticket.messages.get(), timeout)
        except TimeoutError:
            return None
        if ticket.done and ticket.messages.empty():
            self._slot(slot).queue.remove(ticket)
        return message

    async def cancel(self, slot: str, name: str) -> None:
        """Stop a training at its next report; nobody reads its messages any more."""
        ticket = self._ticket(slot, name)
        if ticket is not None:
            self._cancel(ticket)
            if ticket.done or not ticket.takes:
                self._slot(slot).queue.remove(ticket)

    async def close(self, slot: str) -> None:
        """Stop what runs in a slot and let its workers end."""
        place = self._slot(slot)
        place.closed = True
        for ticket in place.queue:
            self._cancel(ticket)
        place.changed.set()

    @staticmethod
    def _cancel(ticket: Ticket) -> None:
        ticket.cancelled = True
        ticket.answered.set()

    # --- the worker's side

    async def take(self, slot: str, timeout: float) -> Message | None:
        """The job to run now: `{ticket, job, takes}`, `{closed: True}`, or None after a while."""
        place = self._slot(slot)
        found = self._take(place)
        if found is None:
            place.changed.clear()
            try:
                await asyncio.wait_for(place.changed.wait(), timeout)
            except TimeoutError:
                return None
            found = self._take(place)
        return found

    def _take(self, place: Slot) -> Message | None:
        if place.closed:
            return {"closed": True}
        for ticket in list(place.queue):
            if ticket.cancelled:
                place.queue.remove(ticket)
            elif not ticket.done:
                ticket.takes += 1
                ticket.fruitless += 1
                if ticket.fruitless <= DEATHS:
                    return {"ticket": ticket.name, "job": ticket.job, "takes": ticket.takes}
                reason = f"its worker died {DEATHS} times without finishing an epoch"
                self._finish(ticket, {"status": "failed", "reason": reason})
        return None

    async def report(self, slot: str, name: str, message: Message) -> bool:
        """Hand over the report of an epoch. True: go on; False: the trial has been stopped.

        Where the verdict does not come within the patience, training goes on, and a stop takes
        effect at the next report.
        """
        ticket = self._ticket(slot, name)
        if ticket is None or ticket.cancelled:
            return False
        ticket.fruitless = 0
        ticket.answered.clear()
        ticket.messages.put_nowait({**message, "takes": ticket.takes})
        try:
            await asyncio.wait_for(ticket.answered.wait(), self._patience)
        except TimeoutError:
            return True
        return not ticket.cancelled

    async def finish(self, slot: str, name: str, message: Message) -> None:
        """Hand over the last message of a ticket; the slot is free for the next."""
        ticket = self._ticket(slot, name)
        if ticket is None or ticket.done:
            return
        if ticket.cancelled:
            self._slot(slot).queue.remove(ticket)
            return
        self._finish(ticket, message)

    @staticmethod
    def _finish(ticket: Ticket, message: Message) -> None:
        ticket.done = True
        ticket.messages.put_nowait({**message, "takes": ticket.takes})
