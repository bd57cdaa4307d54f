# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import math

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
