"""One execution context of a TensorRT engine with buffers of its own: what a thread holds while it is inside `run`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np

from runtimes._cuda import Buffer, Cuda, CudaError
from runtimes._session import Array, Port

logger = logging.getLogger(__name__)


class Slot:
    """Runs an engine once at a time. All methods want the GPU to be the thread's (`cuda.current()`).

    The stream is the session's: `turn` is held while something is put on it, so that no other thread's work falls into
    the capture of a graph. Waiting is outside of it.
    """

    def __init__(self, cuda: Cuda, engine: Any, stream: Any, turn: Lock, ports: tuple[Mapping[str, Port], ...]) -> None:
        """`ports`: inputs and outputs. With a batch that is fixed, all is prepared and captured here.

        Raises CudaError when the GPU's memory is full.
        """
        self._cuda, self._stream, self._turn = cuda, stream, turn
        self._inputs, self._outputs = ports
        self._context = context = engine.create_execution_context()
        if context is None:
            raise CudaError("TensorRT makes no execution context: the GPU's memory may be full")
        self._buffers: dict[str, Buffer] = {}
        self._done = cuda.event()
        self._graph: Any = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        if all(None not in port.shape for port in self._inputs.values()):
            shapes = {name: [size or 1 for size in port.shape] for name, port in self._inputs.items()}
            self._warm_up({name: np.zeros(shape, self._inputs[name].dtype) for name, shape in shapes.items()})

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Feeds that were checked to outputs that are the caller's. Raises CudaError."""
        shapes = {name: array.shape for name, array in feeds.items()}
        if shapes != {name: self._shapes[name] for name in shapes if name in self._shapes}:
            self._prepare(shapes)
        for name, array in feeds.items():
            np.copyto(self._view(name, self._inputs), array)
        with self._turn:
            if self._graph is not None:
                self._cuda.launch(self._graph, self._stream)
            else:
                self._enqueue()
            self._cuda.record(self._done, self._stream)
        self._cuda.wait(self._done)
        return {name: self._view(name, self._outputs).copy() for name in self._outputs}

    def close(self) -> None:
        """Free what it holds. Its work must be done."""
        if self._graph is not None:
            self._cuda.free_graph(self._graph)
        self._cuda.free_event(self._done)
        for buffer in self._buffers.values():
            buffer.close()
        self._buffers = {}
        self._context = None

    def _warm_up(self, feeds: Mapping[str, Array]) -> None:
        """One run, since what TensorRT puts off until then cannot be captured, and then the capture."""
        self.run(feeds)
        try:
            with self._turn:
                self._graph = self._cuda.captured(self._stream, self._enqueue)
        except CudaError as error:  # some layers wait for the host; they run as well, only later
            logger.info("no CUDA graph of this engine: %s", error)

    def _prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Tell the context these input shapes, and give it room for the outputs that follow from them."""
        context = self._context
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise CudaError(f"TensorRT refuses the shape {shape} for {name!r}")
        made = {name: tuple(context.get_tensor_shape(name)) for name in self._outputs}
        if any(size < 0 for shape in made.values() for size in shape):
            raise CudaError(f"TensorRT does not know the shapes of the outputs beforehand: {made}")
        ports = {**self._inputs, **self._outputs}
        for name, shape in {**shapes, **made}.items():
            size = int(np.prod(shape)) * np.dtype(ports[name].dtype).itemsize
            buffer = self._buffers.get(name)
            if buffer is None or buffer.size < size:
                if buffer is not None:
                    self._buffers.pop(name).close()
                buffer = self._buffers[name] = Buffer(self._cuda, size)
            if not context.set_tensor_address(name, buffer.address):
                raise CudaError(f"TensorRT refuses the memory for {name!r}")
            self._shapes[name] = shape

    def _enqueue(self) -> None:
        context = self._context
        for name in self._inputs:
            self._buffers[name].upload(self._view(name, self._inputs).nbytes, self._stream)
        if not context.execute_async_v3(int(self._stream)):
            raise CudaError("TensorRT could not start the engine")
        for name in self._outputs:
            self._buffers[name].download(self._view(name, self._outputs).nbytes, self._stream)

    def _view(self, name: str, ports: Mapping[str, Port]) -> Array:
        return self._buffers[name].view(self._shapes[name], ports[name].dtype)


class Slots:
    """As many slots as threads are inside `run` at once, made when they are needed, freed when the session closes."""

    def __init__(self, cuda: Cuda, kept: tuple[Any, ...], ports: tuple[Mapping[str, Port], ...]) -> None:
        """`kept`: what must live as long as the engine, the engine last."""
        self._cuda, self._kept, self._ports = cuda, kept, ports
        self._stream = cuda.stream()
        self._turn, self._lock = Lock(), Lock()
        self._idle: list[Slot] = []
        self._busy = 0
        self._closed = False

    def take(self) -> Slot | None:
        """A slot nobody else has, or None when the session is closed. Raises CudaError when memory is full."""
        with self._lock:
            if self._closed:
                return None
            self._busy += 1
            if self._idle:
                return self._idle.pop()
        try:
            return Slot(self._cuda, self._kept[-1], self._stream, self._turn, self._ports)
        except BaseException:
            self._give_up()
            raise

    def give(self, slot: Slot, good: bool) -> None:
        """Give a slot back; one that failed is not used again."""
        with self._lock:
            keep = good and not self._closed
            if keep:
                self._idle.append(slot)
        if not keep:
            with contextlib.suppress(CudaError):
                slot.close()
        self._give_up()

    def close(self) -> None:
        """Free all that nobody uses now; the rest is freed when it is given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            self._busy += 1
        for slot in idle:
            with contextlib.suppress(CudaError):
                slot.close()
        self._give_up()

    def _give_up(self) -> None:
        with self._lock:
            self._busy -= 1
            last = self._closed and not self._busy and bool(self._kept)
        if last:
            self._kept = ()
            with contextlib.suppress(CudaError):
                self._cuda.free_stream(self._stream)
