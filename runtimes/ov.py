"""OpenVINO: CPU, Intel GPU, Intel NPU."""

from __future__ import annotations

import functools
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from runtimes._errors import Unavailable
from runtimes._session import Array, Port, check_feeds
from runtimes._target import Target, parse_target

EXTRA = "openvino"
PACKAGES = ("openvino",)

_PRECISIONS = {"f32": "f32", "bf16": "bf16", "f16": "f16"}
# OpenVINO's element type names, as numpy says them.
_DTYPES = {"u8": "uint8", "i8": "int8", "i32": "int32", "i64": "int64", "f16": "float16", "f32": "float32"}
# Layers that do the multiplying; their run-time precision is what "the arithmetic" means.
_HEAVY = {"Convolution", "Deconvolution", "FullyConnected", "MatMul", "ScaledDotProductAttention"}


def _core() -> Any:
    core, process = _started()
    if process != os.getpid():  # its threads stayed in the parent: the first compilation would wait for them for ever
        raise Unavailable(
            "OpenVINO was started before this process was forked; start the child with multiprocessing's 'spawn'"
        )
    return core


@functools.cache
def _started() -> tuple[Any, int]:
    """OpenVINO's core, and the process it was made in."""
    # A camera box must not call home: importing OpenVINO writes an identity to ~/intel and sends it out, unless its
    # telemetry package cannot be imported. OpenVINO (and NNCF) then take their own stubs.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise Unavailable(f"OpenVINO does not import ({error}); run: pip install 'edge-pupil[{EXTRA}]'") from error
    return openvino.Core(), os.getpid()


def devices() -> tuple[str, ...]:
    """Devices OpenVINO finds: `cpu`, `gpu` or `gpu.0`, `npu`. Raises Unavailable when it is not installed."""
    return tuple(device.lower() for device in _core().available_devices)


def open_session(
    path: Path,
    device: str,
    *,
    batch: int | None = 1,
    precision: str | None = None,
    cache_dir: Path | None = None,
    prefer: str = "latency",
) -> OvSession:
    """Open an ONNX graph on an OpenVINO device. See `runtimes.open_session` for the arguments and errors."""
    core = _core()
    place = device.upper()
    if place not in core.available_devices and place not in {d.split(".")[0] for d in core.available_devices}:
        here = ", ".join(f"ov:{d}" for d in devices())
        raise Unavailable(f"OpenVINO finds no device {device!r} on this machine; it finds: {here}")
    config: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT" if prefer == "throughput" else "LATENCY"}
    if cache_dir is not None:
        config["CACHE_DIR"] = str(cache_dir)
    if precision is not None:
        if precision not in _PRECISIONS:
            raise Unavailable(f"OpenVINO computes in {', '.join(_PRECISIONS)}, not in {precision!r}")
        config["INFERENCE_PRECISION_HINT"] = _PRECISIONS[precision]
    try:
        model = core.read_model(str(path))
        # Asked now: compiling may give a port further names, those of nodes that were optimised away.
        inputs, outputs = ([port.get_any_name() for port in side] for side in (model.inputs, model.outputs))
        if batch is not None:
            model.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in model.inputs})
        compiled = core.compile_model(model, place, config)
    except Exception as error:  # RuntimeError mostly; UnicodeDecodeError where its own text quotes a broken file
        raise Unavailable(f"OpenVINO cannot open {path.name} on {device!r}: {_first_line(error)}") from error
    session = OvSession(compiled, parse_target(f"ov:{device}"), inputs, outputs)
    if precision is not None and precision not in session.compute.split("+"):
        raise Unavailable(f"OpenVINO computes {path.name} on {device!r} in {session.compute}, not in {precision!r}")
    return session


class OvSession:
    """A compiled model and a pool of its infer requests, one per thread that is inside `run`."""

    def __init__(self, compiled: Any, target: Target, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.target = target
        self._compiled = compiled
        self.inputs: Mapping[str, Port] = {name: _port(compiled.input(name)) for name in inputs}
        self.outputs: Mapping[str, Port] = {name: _port(compiled.output(name)) for name in outputs}
        self.compute = _compute(compiled)
        # Where each output stands among the results: by place they cost nothing, by name as much as a small layer.
        self._places = {n: next(i for i, p in enumerate(compiled.outputs) if n in p.names) for n in outputs}
        self._idle: deque[Any] = deque()  # its pop and append are atomic, and need no lock

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; see `runtimes.Session`."""
        compiled, idle = self._compiled, self._idle  # another thread may close the session meanwhile
        if compiled is None:
            raise Unavailable(f"this session on {self.target} is closed; open another")
        check_feeds(self.inputs, feeds)
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        try:
            # Inputs are borrowed for the length of the call; outputs are copied, so they outlive the request.
            results = request.infer(
                {name: np.ascontiguousarray(array) for name, array in feeds.items()},
                share_inputs=True,
                share_outputs=False,
            )
            arrays = tuple(results.values())
            return {name: arrays[place] for name, place in self._places.items()}
        except Exception as error:  # as above
            raise Unavailable(f"OpenVINO failed while running on {self.target}: {_first_line(error)}") from error
        finally:
            idle.append(request)

    def bare(self, feeds: Mapping[str, Array]) -> Callable[[], object]:
        """A call of an infer request with these feeds, nothing of ours around it: what benchmarks compare with."""
        request, kept = self._compiled.create_infer_request(), dict(feeds)
        return lambda: request.infer(kept, share_inputs=True, share_outputs=True)

    def close(self) -> None:
        """Release the compiled model and its requests; `run` raises afterwards."""
        self._compiled = None
        self._idle = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _port(port: Any) -> Port:
    kind = port.get_element_type().get_type_name()
    shape = tuple(d.get_length() if d.is_static else None for d in port.partial_shape)
    return Port(_DTYPES.get(kind, kind), shape)


def _compute(compiled: Any) -> str:
    """The arithmetic the engine reports for its multiplying layers, integer first: `int8+bf16`, `f32`."""
    floats, integer = set(), False
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        kind = info["layerType"].value if "layerType" in info else ""
        if kind not in _HEAVY:
            continue
        precision = info["runtimePrecision"].value
        if precision in {"i8", "u8"}:
            integer = True
        else:
            floats.add(precision)
    if not floats:  # no float layer multiplies: what is left (activations, pooling) follows the hint
        hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        floats.add(hint)
    return "+".join((["int8"] if integer else []) + sorted(floats))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next(
        (line for line in lines if not line.startswith(("Exception from", "Check '"))), lines[0] if lines else ""
    )
