"""The mailbox without Ray: who waits for whom, and what is left when one of them dies."""

from __future__ import annotations

import asyncio

import pytest

from legoray.search.mailbox import DEATHS, Mailbox


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 20))


@pytest.fixture
def box():
    return Mailbox(patience=0.2)


def test_a_report_waits_until_the_next_message_is_asked_for(box):
    async def scenario():
        await box.submit("s", "t", "key", "job")
        assert await box.take("s", 1) == {"ticket": "t", "job": "job", "takes": 1}
        asking = asyncio.create_task(box.next("s", "t", 5))
        verdict = asyncio.create_task(box.report("s", "t", {"status": "running", "epoch": 1}))
        assert (await asking)["epoch"] == 1
        await asyncio.sleep(0.05)
        assert not verdict.done()
        asking = asyncio.create_task(box.next("s", "t", 5))
        assert await verdict == "go"
        await box.finish("s", "t", {"status": "completed"})
        assert (await asking)["status"] == "completed"

    run(scenario())


def test_a_slow_verdict_does_not_hold_training_up_and_a_late_stop_still_counts(box):
    async def scenario():
        await box.submit("s", "t", "key", "job")
        await box.take("s", 1)
        assert await box.report("s", "t", {"status": "running"}) == "go"  # patience ran out
        await box.cancel("s", "t")
        assert await box.report("s", "t", {"status": "running"}) == "stop"
        await box.finish("s", "t", {"status": "completed"})
        assert await box.take("s", 0.05) is None

    run(scenario())


def test_a_message_that_was_not_read_is_no_verdict(box):
    async def scenario():
        await box.submit("s", "t", "key", "job")
        await box.take("s", 1)
        assert await box.next("s", "t", 0.01) is None
        verdict = asyncio.create_task(box.report("s", "t", {"status": "running", "epoch": 1}))
        await asyncio.sleep(0.01)
        assert (await box.next("s", "t", 1))["epoch"] == 1
        await asyncio.sleep(0.05)
        assert not verdict.done()
        await box.cancel("s", "t")
        assert await verdict == "stop"

    run(scenario())


def test_the_next_job_waits_for_the_cancelled_one(box):
    async def scenario():
        await box.submit("s", "a", "ka", "job a")
        await box.take("s", 1)
        await box.cancel("s", "a")
        await box.submit("s", "b", "kb", "job b")
        assert await box.report("s", "a", {"status": "running"}) == "stop"
        await box.finish("s", "a", {"status": "completed"})
        assert (await box.take("s", 1))["ticket"] == "b"

    run(scenario())


def test_a_dead_worker_s_successor_takes_the_same_job_but_not_for_ever(box):
    async def scenario():
        await box.submit("s", "t", "key", "job")
        for take in range(1, DEATHS + 1):
            assert (await box.take("s", 1))["takes"] == take
        await box.report("s", "t", {"status": "running"})  # progress: the count starts anew
        for _ in range(DEATHS):
            assert (await box.take("s", 1))["ticket"] == "t"
        assert await box.take("s", 0.05) is None
        assert (await box.next("s", "t", 1))["takes"] == DEATHS
        last = await box.next("s", "t", 1)
        assert last["status"] == "failed"
        assert f"died {DEATHS} times" in last["reason"]

    run(scenario())


def test_a_key_is_trained_in_one_place(box):
    """A trial that Tune moved to another slot stops in the old one."""

    async def scenario():
        await box.submit("old", "t", "key", "job")
        await box.take("old", 1)
        await box.submit("new", "u", "key", "job")
        assert await box.report("old", "t", {"status": "running"}) == "leave"
        assert (await box.take("new", 1))["ticket"] == "u"

    run(scenario())


def test_a_closed_slot_lets_its_worker_go(box):
    async def scenario():
        await box.submit("s", "t", "key", "job")
        waiting = asyncio.create_task(box.take("other", 5))
        await asyncio.sleep(0.01)
        await box.close("other")
        assert await waiting == {"closed": True}
        await box.take("s", 1)
        await box.close("s")
        assert await box.report("s", "t", {"status": "running"}) == "leave"
        assert await box.take("s", 1) == {"closed": True}

    run(scenario())


def test_a_mailbox_that_has_lost_its_memory_is_told_the_ticket_again():
    async def scenario():
        box, reborn = Mailbox(patience=0.2), Mailbox(patience=0.2)
        await box.submit("s", "t", "key", "job")
        await box.take("s", 1)
        assert await reborn.report("s", "t", {"status": "running", "epoch": 1}) == "go"
        assert await reborn.finish("s", "t", {"status": "completed"}) is False
        assert (await reborn.next("s", "t", 1))["status"] == "unknown"
        await reborn.submit("s", "t", "key", "job")
        await reborn.submit("s", "t", "key", "job")  # a call that Ray repeats
        verdict = asyncio.create_task(reborn.report("s", "t", {"status": "running", "epoch": 2}))
        told = await reborn.next("s", "t", 1)
        assert (told["epoch"], told["takes"]) == (2, 1)
        asking = asyncio.create_task(reborn.next("s", "t", 1))
        assert await verdict == "go"
        assert await reborn.finish("s", "t", {"status": "completed"}) is True
        assert (await asking)["status"] == "completed"
        assert await reborn.take("s", 0.05) is None

    run(scenario())


def test_a_worker_whose_trial_went_elsewhere_while_the_memory_was_lost_leaves(box):
    async def scenario():
        await box.submit("s", "later", "key", "job")
        assert await box.report("s", "t", {"status": "running"}) == "leave"
        assert await box.finish("s", "t", {"status": "completed"}) is True

    run(scenario())


def test_workers_meet_at_the_end_of_a_ticket_or_learn_that_one_is_missing(box):
    async def scenario():
        await box.submit("s", "t", "key", "job")
        assert await box.meet("s", "t", 0, 2) is False
        assert await asyncio.gather(*(box.meet("s", "t", rank, 2) for rank in (0, 1))) == [True] * 2
        assert await box.meet("s", "unknown", 0, 2) is False

    run(scenario())


def test_a_slot_that_nobody_uses_gives_back_what_it_holds():
    async def scenario():
        box = Mailbox(patience=0.2, idle=0.15)
        assert await box.submit("s", "t", "key", "job")
        await box.take("s", 1)
        await asyncio.sleep(0.2)  # a long training is no idleness
        await box.finish("s", "t", {"status": "completed"})
        assert await box.next("s", "t", 1)
        assert await box.take("s", 0.05) is None
        assert await box.submit("s", "u", "other", "job")  # used again in time
        await asyncio.sleep(0.2)
        assert (await box.take("s", 1))["ticket"] == "u"
        await box.finish("s", "u", {"status": "completed"})
        assert await box.next("s", "u", 1)
        found = [await box.take("s", 0.05) for _ in range(8)]
        assert found[0] is None
        assert found[-1] == {"closed": True}
        assert not await box.submit("s", "v", "third", "job")
        assert await box.submit("new", "v", "third", "job")

    run(scenario())
