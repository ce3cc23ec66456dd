"""CUDA without an engine around it: memory, streams, events and graphs of one GPU.

Through CUDA's driver API (cuda.bindings.driver), which needs no CUDA toolkit and is the same in cuda-python 12 and 13.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from runtimes._errors import Unavailable
from runtimes._session import Array


class CudaError(RuntimeError):
    """A call of CUDA that failed; runtimes translate it."""


@functools.cache
def open_cuda(index: int) -> Cuda:
    """CUDA on one GPU; one for all sessions of a process. Raises Unavailable without cuda-python, CudaError when the
    driver refuses."""
    return Cuda(index)


class Cuda:
    """One GPU's primary context, which all that use CUDA in a process share, and which stays until the process ends.

    Use its methods inside `with cuda.current()`.
    """

    def __init__(self, index: int) -> None:
        """See `open_cuda`."""
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise Unavailable(
                f"cuda-python does not import ({error}); run: pip install 'edge-pupil[tensorrt]'"
            ) from error
        self._driver: Any = driver
        self._ask(driver.cuInit, 0)
        device = self._ask(driver.cuDeviceGet, index)
        self._context = self._ask(driver.cuDevicePrimaryCtxRetain, device)

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of the driver; its result, or a tuple of them. Raises CudaError with the driver's words."""
        driver = self._driver
        code, *results = function(*arguments)
        if code != driver.CUresult.CUDA_SUCCESS:
            known, text = driver.cuGetErrorString(code)
            words = text.decode() if known == driver.CUresult.CUDA_SUCCESS else str(code)
            raise CudaError(f"{getattr(function, '__name__', function)}: {words}")
        return results[0] if len(results) == 1 else tuple(results)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make this GPU the calling thread's, and give the thread back what it had: the app may use CUDA as well."""
        driver = self._driver
        self._ask(driver.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            self._ask(driver.cuCtxPopCurrent)

    def stream(self) -> Any:
        """A stream that does not wait for the default one."""
        driver = self._driver
        return self._ask(driver.cuStreamCreate, driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value)

    def free_stream(self, stream: Any) -> None:
        """Wait for what is on a stream, and end it."""
        driver = self._driver
        self._ask(driver.cuStreamSynchronize, stream)
        self._ask(driver.cuStreamDestroy, stream)

    def event(self) -> Any:
        """An event, which takes no time."""
        driver = self._driver
        return self._ask(driver.cuEventCreate, driver.CUevent_flags.CU_EVENT_DISABLE_TIMING.value)

    def free_event(self, event: Any) -> None:
        """End an event."""
        driver = self._driver
        self._ask(driver.cuEventDestroy, event)

    def record(self, event: Any, stream: Any) -> None:
        """Let the event happen when all that is on the stream now is done."""
        driver = self._driver
        self._ask(driver.cuEventRecord, event, stream)

    def wait(self, event: Any) -> None:
        """Wait for an event. What failed on the stream before it is raised here."""
        driver = self._driver
        self._ask(driver.cuEventSynchronize, event)

    def captured(self, stream: Any, enqueue: Callable[[], None]) -> Any:
        """What `enqueue` puts on the stream, as a graph that `launch` repeats. Raises CudaError if it cannot be one.

        The mode is per thread: another one may allocate memory meanwhile.
        """
        driver = self._driver
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._ask(driver.cuStreamBeginCapture, stream, mode)
        try:
            enqueue()
        except CudaError:
            with contextlib.suppress(CudaError):  # it says that the capture failed, and ends it
                self._ask(driver.cuStreamEndCapture, stream)
            raise
        graph = self._ask(driver.cuStreamEndCapture, stream)
        try:
            return self._ask(driver.cuGraphInstantiate, graph, 0)
        finally:
            self._ask(driver.cuGraphDestroy, graph)

    def launch(self, graph: Any, stream: Any) -> None:
        """Put a captured graph on a stream."""
        driver = self._driver
        self._ask(driver.cuGraphLaunch, graph, stream)

    def free_graph(self, graph: Any) -> None:
        """End a captured graph."""
        driver = self._driver
        self._ask(driver.cuGraphExecDestroy, graph)


class Buffer:
    """Bytes on the GPU and as many on the host, page-locked, so that copies between them wait for nobody."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        """`size`: bytes, at least 1. Raises CudaError when either memory is full."""
        self._cuda = cuda
        driver = cuda._driver
        self.size = size
        self._device = cuda._ask(driver.cuMemAlloc, size)
        try:
            self._host = int(cuda._ask(driver.cuMemHostAlloc, size, 0))
        except CudaError:
            cuda._ask(driver.cuMemFree, self._device)
            raise
        self._bytes: Array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self._host))

    @property
    def address(self) -> int:
        """Where the GPU finds it."""
        return int(self._device)

    def view(self, shape: tuple[int, ...], dtype: str) -> Array:
        """The host's bytes as an array; only until `close`."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        found: Array = self._bytes[:size].view(dtype).reshape(shape)
        return found

    def upload(self, size: int, stream: Any) -> None:
        """Put the copy of the first `size` bytes to the GPU on a stream."""
        driver = self._cuda._driver
        self._cuda._ask(driver.cuMemcpyHtoDAsync, self._device, self._host, size, stream)

    def download(self, size: int, stream: Any) -> None:
        """Put the copy of the first `size` bytes from the GPU on a stream."""
        driver = self._cuda._driver
        self._cuda._ask(driver.cuMemcpyDtoHAsync, self._host, self._device, size, stream)

    def close(self) -> None:
        """Free both."""
        driver = self._cuda._driver
        self._bytes = np.empty(0, np.uint8)
        self._cuda._ask(driver.cuMemFree, self._device)
        self._cuda._ask(driver.cuMemFreeHost, self._host)
