"""The mailbox: how a Tune trial and a long-lived train worker exchange jobs and reports.

One asyncio actor serves a whole sweep; it runs beside the driver, so that losing any other node
loses no message. A *slot* is one worker group, a *ticket* one training that is handed to it.

    trial                    mailbox                    worker (rank 0)
    submit(slot, ticket) ->  queue of the slot      ->  take(slot)
    next(slot, ticket)   <-  messages of the ticket <-  report(slot, ticket): waits for the verdict
    next(...) again, or cancel(...)  ->  verdict    ->  go | stop | leave
                             the last message       <-  finish(slot, ticket)

A worker that dies leaves its ticket unfinished; its successor takes the same one again. A ticket
that kills its worker again and again without a new epoch is given up.

A slot that nobody uses for a while is closed, because it holds its processors: the successor of a
worker whose node has died may be waiting for just these.

The actor that is killed comes back and remembers nothing. A trial that asks for a ticket which is
not known hands the same one in again, and the worker that still trains it goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, Any]
Verdict = Literal["go", "stop", "leave"]  # leave: it will go on elsewhere, or later

DEATHS = 3  # workers that a ticket may lose in a row without finishing an epoch


@dataclass
class Ticket:
    """A training that was handed to a slot."""

    name: str
    key: str
    job: str
    takes: int = 0
    fruitless: int = 0  # takes since the last report
    verdict: Verdict = "go"
    done: bool = False
    messages: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    ranks: set[int] = field(default_factory=set)  # that have come to the same end
    met: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Slot:
    """The tickets that wait for one worker group, the running one first."""

    queue: deque[Ticket] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False
    idle_since: float | None = None


class Mailbox:
    """Jobs in one direction, reports in the other. Every method returns at once or times out."""

    def __init__(self, patience: float = 5.0, idle: float = 30.0) -> None:
        """An empty mailbox.

        Args:
            patience: seconds a worker waits for the verdict on an epoch before it goes on.
            idle: seconds after which a slot without a job is closed.
        """
        self._slots: dict[str, Slot] = {}
        self._patience, self._idle = patience, idle

    def _slot(self, slot: str) -> Slot:
        return self._slots.setdefault(slot, Slot())

    def _ticket(self, slot: str, name: str) -> Ticket | None:
        return next((t for t in self._slot(slot).queue if t.name == name), None)

    # --- the trial's side

    async def submit(self, slot: str, name: str, key: str, job: str) -> bool:
        """Hand a job to a slot. Whoever else still trains the same key is told to leave it.

        A ticket that the slot has already changes nothing.

        Returns:
            Whether the slot takes it: a closed one takes nothing more.
        """
        if self._ticket(slot, name) is not None:
            return True
        if self._slot(slot).closed:
            return False
        for other in self._slots.values():
            for ticket in other.queue:
                if ticket.key == key:
                    self._cancel(ticket, "leave")
        place = self._slot(slot)
        place.queue.append(Ticket(name, key, job))
        place.idle_since = None
        place.changed.set()
        return True

    async def next(self, slot: str, name: str, timeout: float) -> Message | None:
        """The next message of a ticket, or None after `timeout` seconds.

        Asking for the next message is the verdict 'go on' to the one before it. The status
        `unknown` asks for the ticket to be handed in once more.
        """
        ticket = self._ticket(slot, name)
        if ticket is None:
            return {"status": "unknown"}
        if ticket.verdict != "go":
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

    async def cancel(self, slot: str, name: str, verdict: Verdict = "stop") -> None:
        """End a training at its next report; nobody reads its messages any more."""
        ticket = self._ticket(slot, name)
        if ticket is not None:
            self._cancel(ticket, verdict)
            if ticket.done or not ticket.takes:
                self._slot(slot).queue.remove(ticket)

    async def close(self, slot: str) -> None:
        """End what runs in a slot, to go on another time, and let its workers end."""
        place = self._slot(slot)
        place.closed = True
        for ticket in place.queue:
            self._cancel(ticket, "leave")
        place.changed.set()

    @staticmethod
    def _cancel(ticket: Ticket, verdict: Verdict) -> None:
        ticket.verdict = verdict if ticket.verdict == "go" else ticket.verdict
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
                return self._rest(place)
            found = self._take(place)
        return found

    def _rest(self, place: Slot) -> Message | None:
        """What a worker hears that has waited for nothing: to end, once its slot is long unused."""
        if place.queue:
            return None
        now = time.monotonic()
        place.idle_since = now if place.idle_since is None else place.idle_since
        place.closed = now - place.idle_since >= self._idle
        return {"closed": True} if place.closed else None

    def _take(self, place: Slot) -> Message | None:
        if place.closed:
            return {"closed": True}
        for ticket in list(place.queue):
            if ticket.verdict != "go":
                place.queue.remove(ticket)
            elif not ticket.done:
                ticket.takes += 1
                ticket.fruitless += 1
                ticket.ranks.clear()
                ticket.met.clear()
                if ticket.fruitless <= DEATHS:
                    return {"ticket": ticket.name, "job": ticket.job, "takes": ticket.takes}
                reason = f"its worker died {DEATHS} times without finishing an epoch"
                self._finish(ticket, {"status": "failed", "reason": reason})
        return None

    async def report(self, slot: str, name: str, message: Message) -> Verdict:
        """Hand over the report of an epoch, and learn whether the training goes on.

        Where the verdict does not come within the patience, training goes on, and a stop takes
        effect at the next report. So it does where the ticket is not known, unless the slot has
        another one by now.
        """
        ticket = self._ticket(slot, name)
        if ticket is None:
            known = self._slot(slot).queue or self._slot(slot).closed
            return "leave" if known else "go"
        if ticket.verdict != "go":
            return ticket.verdict
        ticket.fruitless, ticket.takes = 0, max(ticket.takes, 1)
        ticket.answered.clear()
        ticket.messages.put_nowait({**message, "takes": ticket.takes})
        try:
            await asyncio.wait_for(ticket.answered.wait(), self._patience)
        except TimeoutError:
            return "go"
        return ticket.verdict

    async def finish(self, slot: str, name: str, message: Message) -> bool:
        """Hand over the last message of a ticket; the slot is free for the next.

        Returns:
            Whether it was taken: not where the ticket is not known, and may be handed in again.
        """
        ticket, place = self._ticket(slot, name), self._slot(slot)
        if ticket is None:
            return bool(place.queue) or place.closed
        if ticket.verdict != "go":
            place.queue.remove(ticket)
        elif not ticket.done:
            self._finish(ticket, message)
        return True

    async def meet(self, slot: str, name: str, rank: int, world: int) -> bool:
        """Whether all workers of a ticket have come to this point; waits for them for a while.

        A worker alone here may have left the others behind in a collective call.
        """
        ticket = self._ticket(slot, name)
        if ticket is None:
            return False
        ticket.ranks.add(rank)
        if len(ticket.ranks) == world:
            ticket.met.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ticket.met.wait(), self._patience)
        return ticket.met.is_set()

    @staticmethod
    def _finish(ticket: Ticket, message: Message) -> None:
        ticket.done = True
        ticket.messages.put_nowait({**message, "takes": max(ticket.takes, 1)})
