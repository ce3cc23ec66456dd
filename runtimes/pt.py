"""PyTorch, eager: programs of `torch.export` (.pt2), on CPU or CUDA. What the full teacher runs on.

A .pt2 file is pickle inside: **loading one runs whatever code its maker put there**. So none is ever part of a bundle;
it lies beside, only benchmarks open it, only when told to (`--on pt:cpu`), and only one that you made yourself.

The exported module takes tensors and returns a dict of tensors: argument names and keys are the names of the ports.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from runtimes._errors import Unavailable
from runtimes._session import Array, Port, check_feeds
from runtimes._target import Target, parse_target

EXTRA = "compress"
PACKAGES = ("torch",)
OPENS = ".pt2"

# What each device computes float layers in; the first is its default.
_PRECISIONS = {"cpu": ("f32", "bf16"), "cuda": ("f32", "bf16", "f16")}
_DTYPES = {"bf16": "bfloat16", "f16": "float16"}


def _engine() -> Any:
    try:
        import torch
    except ImportError as error:
        raise Unavailable(f"PyTorch does not import ({error}); run: pip install 'edge-pupil[{EXTRA}]'") from error
    return torch


def devices() -> tuple[str, ...]:
    """`cpu`, and `cuda.0`, `cuda.1` ... where PyTorch finds them. Raises Unavailable when it is not installed."""
    cuda = _engine().cuda
    return ("cpu", *(f"cuda.{index}" for index in range(cuda.device_count() if cuda.is_available() else 0)))


def open_session(
    path: Path,
    device: str,
    *,
    batch: int | None = 1,
    precision: str | None = None,
    cache_dir: Path | None = None,
    prefer: str = "latency",
) -> PtSession:
    """Open an exported program, which **runs code from the file**. See `runtimes.open_session` for arguments, errors.

    `batch` only fixes the ports, and `cache_dir` and `prefer` are not used: eager means the module as it was exported,
    uncompiled, in PyTorch's own threads.
    `precision` None is float32 without TF32 (10 bits of mantissa); "bf16" and, on CUDA, "f16" are PyTorch's autocast.
    """
    torch = _engine()
    target = parse_target(f"pt:{device}")
    here = devices()
    if target.place not in here and f"{target.place}.0" not in here:
        lost = target.device == "cuda" and len(here) == 1
        hint = "; check the driver (nvidia-smi), and install a PyTorch for it: https://pytorch.org" if lost else ""
        raise Unavailable(f"PyTorch has no device {device!r}; it has: {', '.join(f'pt:{d}' for d in here)}{hint}")
    known = _PRECISIONS[target.device]
    if precision not in {None, *known}:
        raise Unavailable(f"PyTorch computes float layers on {device!r} in {', '.join(known)}, not in {precision!r}")
    from torch.export.passes import move_to_device_pass

    try:
        with warnings.catch_warnings():  # about the program's own example inputs
            warnings.simplefilter("ignore")
            program = move_to_device_pass(torch.export.load(path), _place(target))
            inputs, outputs = _ports(torch, program, batch)
            module = program.module()
    except Unavailable:
        raise
    except Exception as error:  # zip, pickle, JSON and torch each raise their own
        raise Unavailable(f"PyTorch cannot open {path.name} on {device!r}: {_first_line(error)}") from error
    half = getattr(torch, _DTYPES[precision]) if precision in _DTYPES else None
    if half is not None:
        _forget_dtypes(torch, module)
    if target.device == "cuda":  # for the whole process: PyTorch knows no other way
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    return PtSession(torch, module, target, (inputs, outputs), half)


def write_probe(path: Path) -> None:
    """Write what probe.onnx computes (see the doctor) as a program. Raises Unavailable without PyTorch."""
    torch = _engine()
    kernel = ((torch.arange(12, dtype=torch.float32).reshape(4, 3) - 6) / 8).reshape(4, 3, 1, 1)
    table = torch.arange(64, dtype=torch.float32).reshape(16, 4) / 32

    class Probe(torch.nn.Module):  # type: ignore[name-defined, misc]
        def forward(self, image: Any, ids: Any, mask: Any) -> dict[str, Any]:
            pixels = (image.to(torch.float32) / 255).permute(0, 3, 1, 2)
            words = torch.nn.functional.embedding(ids, table) * mask.to(torch.float32).unsqueeze(2)
            pooled = torch.relu(torch.nn.functional.conv2d(pixels, kernel)).mean((2, 3))
            return {"image_embedding": pooled, "text_embedding": words.sum(1)}

    images, texts = torch.export.Dim("images"), torch.export.Dim("texts")
    example = (
        torch.zeros((2, 8, 8, 3), dtype=torch.uint8),
        *(torch.ones((3, 4), dtype=torch.int64) for _ in range(2)),
    )
    program = torch.export.export(
        Probe(), example, dynamic_shapes={"image": {0: images}, "ids": {0: texts}, "mask": {0: texts}}
    )
    torch.export.save(program, path)


class PtSession:
    """An exported module; eager PyTorch may be called from several threads."""

    def __init__(
        self, torch: Any, module: Any, target: Target, ports: tuple[dict[str, Port], dict[str, Port]], half: Any
    ) -> None:
        self.target = target
        self.inputs: Mapping[str, Port] = ports[0]
        self.outputs: Mapping[str, Port] = ports[1]
        self.compute = next((name for name, dtype in _DTYPES.items() if half is getattr(torch, dtype)), "f32")
        self._torch = torch
        self._module = module
        self._place = _place(target)
        self._half = half

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; see `runtimes.Session`. Copying to the host waits for the device."""
        torch, module = self._torch, self._module
        if module is None:
            raise Unavailable(f"this session on {self.target} is closed; open another")
        check_feeds(self.inputs, feeds)
        try:
            # Both are per thread. Copies, in and out: a module may write to its input, or hand one of its weights out.
            with torch.inference_mode(), self._arithmetic():
                tensors = [torch.tensor(np.ascontiguousarray(feeds[name]), device=self._place) for name in self.inputs]
                results = module(*tensors)
                dtypes = {name: getattr(torch, port.dtype) for name, port in self.outputs.items()}
                return {name: results[name].to("cpu", dtype).clone().numpy() for name, dtype in dtypes.items()}
        except Exception as error:
            raise Unavailable(f"PyTorch failed while running on {self.target}: {_first_line(error)}") from error

    def close(self) -> None:
        """Release the module; `run` raises afterwards."""
        self._module = None

    def _arithmetic(self) -> Any:
        return nullcontext() if self._half is None else self._torch.autocast(self.target.device, self._half)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _place(target: Target) -> str:
    """The device as PyTorch names it: `cpu`, `cuda:1`."""
    return "cpu" if target.device == "cpu" else f"{target.device}:{target.index or 0}"


def _ports(torch: Any, program: Any, batch: int | None) -> tuple[dict[str, Port], dict[str, Port]]:
    """Inputs and outputs of a program. Raises Unavailable when it takes or gives something else than named tensors."""
    signature, unflatten = program.graph_signature, torch.utils._pytree.tree_unflatten
    args, kwargs = unflatten(list(signature.user_inputs), program.call_spec.in_spec)
    given = unflatten(list(signature.user_outputs), program.call_spec.out_spec)
    named = isinstance(given, dict) and all(isinstance(node, str) for node in given.values())
    if kwargs or list(args) != list(signature.user_inputs) or not named:
        raise Unavailable("the program must take tensors and return a dict of tensors by name; export such a forward")
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs = {name: _port(nodes[name], batch) for name in args}
    outputs = {name: _port(nodes[node]) for name, node in given.items()}
    return inputs, outputs


def _port(value: Any, batch: int | None = None) -> Port:
    shape = [d if isinstance(d, int) else None for d in value.shape]
    if shape and shape[0] is None:
        shape[0] = batch
    return Port(str(value.dtype).removeprefix("torch."), tuple(shape))


def _forget_dtypes(torch: Any, module: Any) -> None:
    """Exported programs assert the dtypes they saw; under autocast some of them are others, and that is the point."""
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
    module.recompile()


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
