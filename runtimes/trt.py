"""TensorRT 10.x and 11.x on NVIDIA GPUs, by its own API: graphs are compiled for the GPU that is here, and kept.

Has not run on a GPU yet, see README. What could be proven without one: tests/runtimes/test_trt_contract.py holds every
call against the real bindings, tests/runtimes/test_trt_rtx.py compiles our graphs with TensorRT for RTX.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtimes._cuda import Cuda, CudaError, open_cuda
from runtimes._engine_cache import EngineCache
from runtimes._errors import FeedError, Unavailable
from runtimes._gpus import Gpu, gpus
from runtimes._session import Array, Port, Progress, check_feeds
from runtimes._target import Target, parse_target
from runtimes._trt_build import MAX_ROWS, RECIPE, Build, BuildError, make_log
from runtimes._trt_graph import TrtGraph, read_graph
from runtimes._trt_slot import Slots

EXTRA = "tensorrt"
# Whichever of them is here: they carry the same module, and its libraries for one CUDA.
PACKAGES = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "cuda-bindings")
BUILDS = True

_MAJORS = (10, 11)
_DTYPES = {
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "HALF": "float16",
    "FLOAT": "float32",
}


@functools.cache
def _engine() -> Any:
    try:
        import tensorrt
    except (ImportError, OSError) as error:  # OSError: its libraries are not where it looks for them
        raise Unavailable(f"TensorRT does not import ({error}); run: pip install 'edge-pupil[{EXTRA}]'") from error
    version = str(tensorrt.__version__)
    if int(version.split(".", maxsplit=1)[0]) not in _MAJORS:
        raise Unavailable(f"this is TensorRT {version}, and 10 or 11 is needed; run: pip install 'edge-pupil[{EXTRA}]'")
    return tensorrt


def devices() -> tuple[str, ...]:
    """`cuda.0`, `cuda.1` ... Raises Unavailable when TensorRT is not installed, or no GPU can be used."""
    _engine()
    return tuple(f"cuda.{gpu.index}" for gpu in gpus())


def open_session(
    path: Path,
    device: str,
    *,
    batch: int | None = 1,
    precision: str | None = None,
    cache_dir: Path | None = None,
    prefer: str = "latency",
    progress: Progress | None = None,
) -> TrtSession:
    """Compile an ONNX graph for a GPU, or take it from the cache. See `runtimes.open_session`.

    Compiling takes minutes on small devices. With `cache_dir` it is done once per graph, batch, GPU and versions.
    `batch` None takes 1 to 32 rows. `prefer` changes nothing: every thread that calls at once has a context and a
    stream. Graphs that TensorRT would refuse are refused before anything is compiled.
    """
    trt = _engine()
    target = parse_target(f"trt:{device}")
    gpu = _gpu(target)
    graph = read_graph(path)
    if precision is not None and precision not in graph.compute.split("+"):
        raise Unavailable(f"TensorRT computes {path.name} in {graph.compute}, as it is typed, not in {precision!r}")
    try:
        cuda = open_cuda(gpu.index)
        with cuda.current():
            log = make_log(trt)
            runtime = trt.Runtime(log)
            facts = _facts(trt, gpu, graph, path, batch)
            cache = EngineCache(cache_dir / "trt") if cache_dir is not None else None
            engine = _stored(runtime, cache, facts) or _built(trt, runtime, path, batch, cache, facts, log, progress)
            return TrtSession(trt, cuda, (log, runtime, engine), target, graph.compute, batch)
    except (CudaError, BuildError, OSError) as error:
        raise Unavailable(f"TensorRT cannot open {path.name} on {device!r}: {_first_line(error)}") from error


def _gpu(target: Target) -> Gpu:
    here = gpus()
    index = target.index or 0
    if target.device != "cuda" or index >= len(here):
        names = ", ".join(f"trt:cuda.{gpu.index}" for gpu in here)
        raise Unavailable(f"TensorRT has no device {target.place!r}; it has: {names}")
    return here[index]


def _facts(trt: Any, gpu: Gpu, graph: TrtGraph, path: Path, batch: int | None) -> dict[str, object]:
    """All that decides an engine, and so names it in the cache."""
    digest = hashlib.sha256(path.read_bytes())
    for name in graph.external:
        digest.update((path.parent / name).read_bytes())
    return {
        **_machine(trt, gpu),
        "graph": digest.hexdigest(),
        "variant": graph.compute,
        "rows": [1, MAX_ROWS] if batch is None else [batch, batch],
        "recipe": RECIPE,
    }


def _machine(trt: Any, gpu: Gpu) -> dict[str, object]:
    """What the timing cache depends on as well."""
    return {
        "tensorrt": str(trt.__version__),
        "cuda": gpu.cuda,
        "driver": gpu.driver,
        "gpu": gpu.name,
        "capability": list(gpu.capability),
    }


def _stored(runtime: Any, cache: EngineCache | None, facts: dict[str, object]) -> Any:
    plan = cache.load(facts) if cache is not None else None
    if cache is None or plan is None:
        return None
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:  # whole, and yet TensorRT does not want it: build it again
        cache.drop(facts)
    return engine


def _built(
    trt: Any,
    runtime: Any,
    path: Path,
    batch: int | None,
    cache: EngineCache | None,
    facts: dict[str, object],
    log: Any,
    progress: Progress | None,
) -> Any:
    build = Build(trt, path, log)
    times = {name: facts[name] for name in ("tensorrt", "cuda", "driver", "gpu", "capability")} | {"is": "timing"}
    plan, timing = build.plan(build.shapes(batch), cache.load(times) if cache is not None else None, progress)
    if cache is not None:
        cache.store(times, timing)
        cache.store(facts, plan)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(log.errors[-1] if log.errors else "it does not load the engine that it just built")
    return engine


class TrtSession:
    """An engine on a GPU: a stream, and a slot (execution context, pinned buffers, CUDA graph) per thread in `run`."""

    def __init__(
        self, trt: Any, cuda: Cuda, kept: tuple[Any, Any, Any], target: Target, compute: str, batch: int | None
    ) -> None:
        """`kept`: log, runtime and engine, each of which needs the one before it as long as it lives."""
        self.target = target
        self.compute = compute
        self._cuda = cuda
        engine = kept[-1]
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) for name in names}
        read = {name: _port(engine, name, batch) for name in names}
        self.inputs: Mapping[str, Port] = {n: read[n] for n in names if modes[n] == trt.TensorIOMode.INPUT}
        self.outputs: Mapping[str, Port] = {n: read[n] for n in names if modes[n] == trt.TensorIOMode.OUTPUT}
        self._slots = Slots(cuda, kept, (self.inputs, self.outputs))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; see `runtimes.Session`. With a free batch at most 32 rows, or FeedError is raised."""
        check_feeds(self.inputs, feeds)
        rows = max(len(array) for array in feeds.values())
        if rows > MAX_ROWS and any(port.shape[0] is None for port in self.inputs.values()):
            raise FeedError(f"this engine takes 1 to {MAX_ROWS} rows at once, and {rows} came; give them in parts")
        return self._run(feeds)

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            with self._cuda.current():
                slot = self._slots.take()
                if slot is None:
                    raise Unavailable(f"this session on {self.target} is closed; open another")
                good = False
                try:
                    results = slot.run(feeds)
                    good = True
                finally:
                    self._slots.give(slot, good)
                return results
        except CudaError as error:
            raise Unavailable(f"TensorRT failed while running on {self.target}: {_first_line(error)}") from error

    def bare(self, feeds: Mapping[str, Array]) -> Callable[[], object]:
        """A call of the engine with these feeds, without the checks of `run`: what benchmarks compare with."""
        kept = dict(feeds)
        return lambda: self._run(kept)

    def close(self) -> None:
        """Release engine and memory, once no thread is inside `run`; `run` raises afterwards."""
        with contextlib.suppress(CudaError), self._cuda.current():
            self._slots.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _port(engine: Any, name: str, batch: int | None) -> Port:
    kind = engine.get_tensor_dtype(name).name
    shape = [None if size < 0 else int(size) for size in engine.get_tensor_shape(name)]
    if shape and shape[0] is None:  # the profile has only this number of rows
        shape[0] = batch
    return Port(_DTYPES.get(kind, kind.lower()), tuple(shape))


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
