# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import math
import threading
from collections.abc import Callable

import pytest
from lmfleet_sim import cuda
from lmfleet_sim.settings import Settings


class Collective:
    """A collective that is over when the test says so."""

    over = False

    def is_completed(self) -> bool:
        return self.over


def test_work_takes_its_time_and_the_host_goes_on() -> None:
    stream = cuda.Stream()
    stream.launch(3600.0)
    event = stream.record_event()
    assert not event.query()
    assert not stream.query()


def test_an_event_marks_what_was_launched_before_it() -> None:
    stream, event = cuda.Stream(), cuda.Event()
    event.record(stream)
    stream.launch(math.inf)
    assert event.query()
    assert not stream.query()


def test_work_waits_for_all_collectives_before_it() -> None:
    stream, first, second = cuda.Stream(), Collective(), Collective()
    stream.launch(0.0, first)
    stream.launch(0.0, second)
    second.over = True
    assert not stream.query()
    first.over = True
    assert stream.query()


def test_a_stream_can_wait_for_another() -> None:
    busy, by_event, by_stream, collective = cuda.Stream(), cuda.Stream(), cuda.Stream(), Collective()
    busy.launch(0.0, collective)
    by_event.launch(0.0)
    by_event.wait_event(busy.record_event())
    by_stream.wait_stream(busy)
    assert (by_event.query(), by_stream.query()) == (False, False)
    collective.over = True
    assert (by_event.query(), by_stream.query()) == (True, True)


def test_synchronize_waits_until_the_work_is_done() -> None:
    stream = cuda.Stream()
    stream.launch(0.05)
    stream.synchronize()
    assert stream.query()


class Work:
    """One rank's part in a collective: it lasts until all others have done theirs."""

    def __init__(self, others: Callable[[], object]) -> None:
        self._others = others

    def wait(self) -> None:
        self._others()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> cuda.Device:
    """A device of its own, for one that waits for a rank for ever is of no use to other tests."""
    device = cuda.Device()
    monkeypatch.setattr(cuda, "_device", device)
    return device


@pytest.mark.usefixtures("device")
def test_a_collective_begins_when_its_stream_comes_to_it() -> None:
    stream, begun_after_all_before = cuda.Stream(), []
    stream.launch(0.2)
    before = stream.record_event()

    def begin() -> Work:
        begun_after_all_before.append(before.query())
        return Work(lambda: None)

    stream.join(begin)
    stream.synchronize()
    assert begun_after_all_before == [True]


@pytest.mark.usefixtures("device")
def test_a_stream_waits_for_a_collective_that_it_joined_and_the_host_does_not() -> None:
    stream, others = cuda.Stream(), threading.Event()
    stream.join(lambda: Work(others.wait))
    stream.launch(0.0)
    assert not stream.query()
    others.set()
    stream.synchronize()
    assert stream.query()


def test_a_collective_of_a_rank_that_is_gone_never_ends(device: cuda.Device) -> None:
    stream, before, begun = cuda.Stream(), cuda.Event(), []

    def connection_closed() -> None:
        raise RuntimeError("Connection closed by peer")

    def begin_next() -> Work:
        begun.append("next")
        return Work(lambda: None)

    before.record(stream)
    stream.join(lambda: Work(connection_closed))
    stream.join(begin_next)
    assert device.thread is not None
    device.thread.join(30)
    assert not device.thread.is_alive()
    assert before.query()
    assert not stream.query()
    assert begun == []


def test_the_current_stream_is_current_for_a_while_only() -> None:
    before, stream = cuda.current_stream(), cuda.Stream()
    with cuda.use_stream(stream):
        assert cuda.current_stream() is stream
        event = cuda.Event()
        stream.launch(math.inf)
        event.record()
        assert not event.query()
    assert cuda.current_stream() is before


@pytest.mark.parametrize(("visible", "count"), [(None, 4), ("0", 1), ("0,1,2", 3), ("", 0)])
def test_visible_gpus(visible: str | None, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cuda.visible_gpus(Settings(gpus=4)) == count
