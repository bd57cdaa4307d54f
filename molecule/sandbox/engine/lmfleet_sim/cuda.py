# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs that are not there: what torch.cuda and Ray answer about them, and a clock in place of their streams.

A tensor "on cuda" lies in main memory. Work given to a stream is only a time at which it will be done, so that, as on
a real GPU, the host goes on while the device is busy, and a rank that hangs still answers everything but its event.
A collective that a stream joins is a real one of the ranks, over gloo, and as with NCCL the device's affair alone.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

from lmfleet_sim.hooks import ImportHooks, replace
from lmfleet_sim.settings import Settings

GIB = 1 << 30
TOTAL_MEMORY = 80 * GIB
FREE_MEMORY = 70 * GIB
COMPUTE_CAPABILITY = (9, 0)
NAME = "NVIDIA H800 (simulated)"
POLL_S = 0.001
LONGEST_SLEEP_S = 3600.0  # what hangs sleeps on; time.sleep takes no infinity


@dataclass
class Job:
    """The end of a piece of device work: a time of the monotonic clock, and collectives that must be over as well."""

    done_at: float = 0.0
    collectives: tuple[Any, ...] = ()

    def done(self) -> bool:
        """Tell whether the device has done this work."""
        return time.monotonic() >= self.done_at and all(work.is_completed() for work in self.collectives)

    def wait(self) -> None:
        """Block the calling thread until the device has done this work."""
        while not self.done():
            time.sleep(min(max(self.done_at - time.monotonic(), POLL_S), LONGEST_SLEEP_S))


class Collective:
    """A collective that the device takes part in; its end is all that the host can see of it."""

    over = False

    def is_completed(self) -> bool:
        """Tell whether all ranks have done their part."""
        return self.over


class Device:
    """What runs the collectives of this process: one after another as they were launched, so alike on all ranks.

    As a kernel of NCCL, one begins when the work before it is done, not when the host launches it, and ends when all ranks
    have done their part. If one of them is gone it never ends, whatever gloo says of a closed connection, nor does anything
    after it.
    """

    def __init__(self) -> None:
        self._launched: queue.SimpleQueue[tuple[Job, Callable[[], Any], Collective]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.thread: threading.Thread | None = None

    def launch(self, after: Job, begin: Callable[[], Any]) -> Collective:
        """Take part in a collective once ``after`` is done, without blocking the host."""
        collective = Collective()
        self._launched.put((after, begin, collective))
        with self._lock:
            if self.thread is None:
                # A daemon, for the process may end while another rank is awaited for ever.
                self.thread = threading.Thread(target=self._run, name="lmfleet simulated device", daemon=True)
                self.thread.start()
        return collective

    def _run(self) -> None:
        while True:
            after, begin, collective = self._launched.get()
            after.wait()
            work = begin()
            try:
                work.wait()
            except RuntimeError:  # gloo: a rank is gone
                return
            collective.over = True


class Event:
    """torch.cuda.Event: remembers the last job of a stream when it is recorded."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.job = Job()

    def record(self, stream: Stream | None = None) -> None:
        """Mark this point of ``stream``, by default the current one."""
        self.job = (stream or current_stream()).last

    def query(self) -> bool:
        """Tell whether all work before the mark is done."""
        return self.job.done()

    def synchronize(self) -> None:
        """Block the host until all work before the mark is done."""
        self.job.wait()

    def wait(self, stream: Stream | None = None) -> None:
        """Make ``stream`` wait for the mark, without blocking the host."""
        (stream or current_stream()).wait_event(self)


class Stream:
    """torch.cuda.Stream: jobs done one after another. Only the last is kept: when it is done, all before it are."""

    cuda_stream = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.last = Job()

    def launch(self, seconds: float, *collectives: Any) -> None:
        """Give the device work that takes ``seconds`` after all that it has been given before."""
        self._then(Job(max(time.monotonic(), self.last.done_at) + seconds, collectives))

    def join(self, begin: Callable[[], Any]) -> None:
        """Have the device take part in a collective after all that it has been given before.

        ``begin`` starts this rank's part and returns torch's Work.
        """
        self._then(Job(0.0, (_device.launch(self.last, begin),)))

    def wait_event(self, event: Event) -> None:
        """Do what is launched from now on after the event's work."""
        self._then(event.job)

    def wait_stream(self, stream: Stream) -> None:
        """Do what is launched from now on after all that ``stream`` has been given."""
        self._then(stream.last)

    def _then(self, job: Job) -> None:
        pending = tuple(work for work in self.last.collectives if not work.is_completed())
        self.last = Job(max(self.last.done_at, job.done_at), pending + job.collectives)

    def record_event(self, event: Event | None = None) -> Event:
        """Return an event that marks this point of the stream."""
        event = event or Event()
        event.record(self)
        return event

    def query(self) -> bool:
        """Tell whether all work of this stream is done."""
        return self.last.done()

    def synchronize(self) -> None:
        """Block the host until all work of this stream is done."""
        self.last.wait()


_default_stream = Stream()
_device = Device()
_thread = threading.local()


def current_stream(device: object = None) -> Stream:
    """Return the calling thread's current stream."""
    stream: Stream = getattr(_thread, "stream", _default_stream)
    return stream


def set_stream(stream: Stream) -> None:
    """Make ``stream`` the calling thread's current one."""
    _thread.stream = stream


@contextlib.contextmanager
def use_stream(stream: Stream | None) -> Iterator[None]:
    """torch.cuda.stream: make ``stream`` current for a while."""
    before = current_stream()
    set_stream(stream or before)
    try:
        yield
    finally:
        set_stream(before)


def visible_gpus(settings: Settings) -> int:
    """Return how many GPUs this process sees: those of CUDA_VISIBLE_DEVICES where it is set, else the host's."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return settings.gpus if visible is None else len([gpu for gpu in visible.split(",") if gpu.strip()])


def register(hooks: ImportHooks, settings: Settings) -> None:
    """Have torch and Ray answer as on a host with ``settings.gpus`` GPUs."""

    @hooks.after("torch")
    def simulate_cuda(torch: Any) -> None:
        replace(torch, Stream=Stream, Event=Event)
        replace(
            torch.cuda,
            Stream=Stream,
            Event=Event,
            stream=use_stream,
            current_stream=current_stream,
            default_stream=lambda device=None: _default_stream,
            set_stream=set_stream,
            synchronize=lambda device=None: current_stream().synchronize(),
            empty_cache=lambda: None,
            is_available=lambda: settings.gpus > 0,
            device_count=lambda: visible_gpus(settings),
            current_device=lambda: 0,
            set_device=lambda device: None,
            get_device_name=lambda device=None: NAME,
            get_device_capability=lambda device=None: COMPUTE_CAPABILITY,
            get_device_properties=lambda device=None: SimpleNamespace(
                name=NAME,
                major=COMPUTE_CAPABILITY[0],
                minor=COMPUTE_CAPABILITY[1],
                total_memory=TOTAL_MEMORY,
                multi_processor_count=132,
                uuid="simulated",
            ),
            mem_get_info=lambda device=None: (FREE_MEMORY, TOTAL_MEMORY),
            memory_allocated=lambda device=None: 0,
            memory_reserved=lambda device=None: 0,
        )
        replace(
            torch.Tensor,
            cuda=lambda self, *args, **kwargs: self,
            pin_memory=lambda self, *args, **kwargs: self,
            record_stream=lambda self, stream: None,
        )
        torch._C._cuda_clearCublasWorkspaces = lambda: None  # a build for CPUs lacks it; LMDeploy calls it as it ends
        _move_cuda_to_cpu(torch)

    @hooks.after("ray._private.accelerators.nvidia_gpu")
    def declare_gpus_to_ray(nvidia_gpu: ModuleType) -> None:
        replace(
            nvidia_gpu.NvidiaGPUAcceleratorManager,
            get_current_node_num_accelerators=staticmethod(lambda: visible_gpus(settings)),
            get_current_node_accelerator_type=staticmethod(lambda: None),
        )


def _move_cuda_to_cpu(torch: Any) -> None:
    """Have every torch function put on the CPU what it is asked to put on a GPU, in every thread."""
    from torch.overrides import TorchFunctionMode

    def on_cpu(device: Any) -> Any:
        if isinstance(device, int) or (isinstance(device, torch.device) and device.type == "cuda"):
            return torch.device("cpu")
        return "cpu" if isinstance(device, str) and device.startswith("cuda") else device

    class OnCpu(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = dict(kwargs or {})
            if kwargs.get("device") is not None:
                kwargs["device"] = on_cpu(kwargs["device"])
            if kwargs.get("pin_memory"):
                kwargs["pin_memory"] = False
            if func is torch.Tensor.to and len(args) > 1 and isinstance(args[1], (str, torch.device)):
                args = (args[0], on_cpu(args[1]), *args[2:])
            return func(*args, **kwargs)

    run_thread = threading.Thread.run

    def run_on_cpu(thread: threading.Thread) -> None:
        with OnCpu():
            run_thread(thread)

    # A mode holds for the thread that entered it: this one now, the others as each begins.
    threading.Thread.run = run_on_cpu  # type: ignore[assignment,method-assign]
    OnCpu().__enter__()
