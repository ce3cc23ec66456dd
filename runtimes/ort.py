"""ONNX Runtime: CPU, CUDA and OpenVINO, with no silent fallback."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from runtimes._errors import Unavailable
from runtimes._ort_binding import Bindings
from runtimes._ort_providers import EXTRAS, GPU, PROVIDERS, ask_for, carried, load_libraries
from runtimes._session import Array, Port, check_feeds
from runtimes._target import Target, parse_target

EXTRA = "onnx"
# Whichever of them is here: they carry the same module.
PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-ep-openvino",
)

_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
}
# Nodes that do the multiplying: when CUDA was asked for, none of them may land on the CPU.
_HEAVY = {"Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul", "Attention", "MultiHeadAttention"}
# Kernels that multiply integers; a Q/DQ graph that shows none of them after optimisation computes in float.
_INTEGER = (b"QLinearConv", b"QLinearMatMul", b"QGemm", b"MatMulInteger", b"ConvInteger", b"DynamicQuantizeMatMul")


def _engine() -> Any:
    # A camera box must not call home: from 1.31 on, importing ONNX Runtime writes an identity to ~/.cache and sends it
    # to its maker. This is the documented way to say no (Privacy.md); whoever wants it sets the variable to 0.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise Unavailable(f"ONNX Runtime does not import ({error}); run: pip install 'edge-pupil[{EXTRA}]'") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # What is left when onnxruntime and onnxruntime-gpu were both installed and one was removed.
        raise Unavailable(
            "ONNX Runtime is half installed; run: pip uninstall -y onnxruntime onnxruntime-gpu && "
            "pip install 'edge-pupil[onnx]' (or [cuda])"
        )
    return onnxruntime


def devices() -> tuple[str, ...]:
    """Devices whose provider this build of ONNX Runtime carries. Raises Unavailable when it is not installed.

    A build for CUDA lists `cuda.0` even where no driver is; opening a session there tells.
    """
    return tuple(f"{device}.0" if device in GPU else device for device in carried(_engine()))


def open_session(
    path: Path,
    device: str,
    *,
    batch: int | None = 1,
    precision: str | None = None,
    cache_dir: Path | None = None,
    prefer: str = "latency",
) -> OrtSession:
    """Open an ONNX graph on ONNX Runtime. See `runtimes.open_session` for the arguments and errors.

    `cache_dir` is not used: these devices compile nothing that would outlast the session.
    """
    engine = _engine()
    target = parse_target(f"ort:{device}")
    provider = PROVIDERS.get(target.device)
    missing = target.device not in carried(engine)
    if provider is None or missing or (target.device not in GPU and target.index is not None):
        here = ", ".join(f"ort:{d}" for d in devices())
        hint = f"; run: pip install 'edge-pupil[{EXTRAS[target.device]}]'" if provider and missing else ""
        raise Unavailable(f"this ONNX Runtime has no device {device!r}; it has: {here}{hint}")
    # The TensorRT provider has no option against TF32, whose mantissa has 10 bits.
    floats = "tf32" if target.device == "tensorrt" else "f32"
    if precision not in {None, floats}:
        raise Unavailable(f"ONNX Runtime computes float layers as the graph says ({floats}), not in {precision!r}")
    load_libraries(engine, target.device)
    threads = 1 if prefer == "throughput" else 0  # 0: as many as there are cores; callers bring their own otherwise
    try:
        # ORT's exceptions derive from Exception directly, one class per status code.
        if _contains(path, (b"QuantizeLinear",)):
            inner, compute = _open_quantized(lambda dump: _open(engine, path, target, batch, threads, dump, True))
        else:
            inner, compute = _open(engine, path, target, batch, threads), floats
    except Exception as error:
        raise Unavailable(f"ONNX Runtime cannot open {path.name} on {device!r}: {_first_line(error)}") from error
    _refuse_fallback(inner, provider, device)
    return OrtSession(engine, inner, target, compute, batch)


def _open(
    engine: Any,
    path: Path,
    target: Target,
    batch: int | None,
    threads: int,
    dump: Path | None = None,
    quantized: bool = False,
) -> Any:
    options = _options(engine)
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if dump is not None:
        options.optimized_model_filepath = str(dump)
    if batch is not None:
        for name in _free_batch_names(engine, path):
            options.add_free_dimension_override_by_name(name, batch)
    wish = ask_for(engine, options, target, quantized)
    # MatMulAddFusion makes a float Gemm of a product and its bias before integer kernels are looked for, and unpacks
    # the weights on every call: an int8 text tower took 10.8 ms with it, 1.5 without (fp32 2.4).
    skipped = ["MatMulAddFusion"] if quantized else []
    # ORT's own fallback would move to the CPU with a word on stdout, here and whenever a later run fails.
    return engine.InferenceSession(str(path), options, providers=wish, enable_fallback=0, disabled_optimizers=skipped)


def _options(engine: Any) -> Any:
    options = engine.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions, and need not be on stderr as well
    # By the name alone, x.ort would be read as another format than the one that was checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _open_quantized(opened: Callable[[Path | None], Any]) -> tuple[Any, str]:
    """Open a Q/DQ graph and find out what it computes in: only the optimised graph tells which kernels ORT chose."""
    try:
        with tempfile.TemporaryDirectory(prefix="pupil-ort-") as folder:
            dump = Path(folder) / "optimised.onnx"
            inner = opened(dump)
            return inner, "int8+f32" if _contains(dump, _INTEGER) else "f32"
    except Exception:  # a full disk, or nowhere to write on a read-only box; what else is wrong shows again below
        return opened(None), "unknown"


class OrtSession:
    """An inference session; ONNX Runtime's own `run` is thread-safe."""

    def __init__(self, engine: Any, inner: Any, target: Target, compute: str, batch: int | None) -> None:
        self.target = target
        self.compute = compute
        self._inner = inner
        self.inputs: Mapping[str, Port] = {port.name: _port(port, batch) for port in inner.get_inputs()}
        self.outputs: Mapping[str, Port] = {port.name: _port(port) for port in inner.get_outputs()}
        self._names = list(self.outputs)
        fixed = all(None not in port.shape for port in self.inputs.values())
        place = ("cuda", target.index or 0)  # as ONNX Runtime calls the memory of both
        bound = target.device in GPU and fixed
        self._bindings = Bindings(engine, inner, (self.inputs, self.outputs), place) if bound else None

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; see `runtimes.Session`."""
        inner = self._inner
        if inner is None:
            raise Unavailable(f"this session on {self.target} is closed; open another")
        check_feeds(self.inputs, feeds)
        bindings = self._bindings  # another thread may close the session meanwhile
        try:
            if bindings is not None:
                return bindings.run(feeds)
            results = inner.run(self._names, {name: np.ascontiguousarray(array) for name, array in feeds.items()})
        except Exception as error:
            raise Unavailable(f"ONNX Runtime failed while running on {self.target}: {_first_line(error)}") from error
        return dict(zip(self._names, results, strict=True))

    def bare(self, feeds: Mapping[str, Array]) -> Callable[[], object]:
        """A call of the engine's `run` with these feeds, nothing of ours around it: what benchmarks compare with."""
        inner, kept = self._inner, dict(feeds)
        return lambda: inner.run(None, kept)

    def close(self) -> None:
        """Release the session; `run` raises afterwards."""
        self._inner = self._bindings = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _free_batch_names(engine: Any, path: Path) -> set[str]:
    """Names of the first dimension of every input, where it is free. Optimisation is off: this session never runs."""
    options = _options(engine)
    options.graph_optimization_level = engine.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = engine.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0)
    return {port.shape[0] for port in session.get_inputs() if port.shape and isinstance(port.shape[0], str)}


def _refuse_fallback(inner: Any, provider: str, device: str) -> None:
    """ONNX Runtime moves a session to the CPU without raising: look where it really went."""
    got = inner.get_providers()[0]
    if got != provider:
        raise Unavailable(
            f"ONNX Runtime was asked for {provider} and went to {got}: its libraries or driver for {device!r} do not "
            "load. Run: python -m runtimes"
        )
    if provider == "CPUExecutionProvider":
        return
    strays = [
        node.op_type
        for part in inner.get_provider_graph_assignment_info()
        if part.ep_name == "CPUExecutionProvider"
        for node in part.get_nodes()
        if node.op_type in _HEAVY
    ]
    if strays:
        raise Unavailable(
            f"{provider} left {len(strays)} multiplying nodes on the CPU ({', '.join(sorted(set(strays)))})"
        )


def _port(port: Any, batch: int | None = None) -> Port:
    shape = [d if isinstance(d, int) else None for d in port.shape]
    if shape and shape[0] is None:  # an unnamed dimension cannot be overridden in the engine; check_feeds then fixes it
        shape[0] = batch
    return Port(_DTYPES.get(port.type, port.type), tuple(shape))


def _contains(path: Path, words: tuple[bytes, ...]) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(word) >= 0 for word in words)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
