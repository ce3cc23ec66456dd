"""Quantized layers put back to float, and which of them it helps most.

A layer that goes back is the very node of the float graph: its weights, its bias, and the activations that it reads
there. So it does not matter what the quantizer did around it: NNCF's SmoothQuant divides weights by what it multiplies
activations with, its bias correction moves biases, ONNX Runtime stores biases as int32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

import runtimes
from compress.export import save_graph
from compress.graph import remove_dead
from runtimes import Array, RecipeError, Target

LAYERS = {"Conv", "MatMul", "Gemm"}
# ONNX Runtime's quantizer drops these: the quantizer behind them cuts at their bounds.
_ABSORBED = {"Relu", "Clip"}
_FLOAT = ".float"


def quantized_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the convolutions and products that read a DequantizeLinear, in order."""
    dequantized = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return tuple(n.name for n in model.graph.node if n.op_type in LAYERS and not dequantized.isdisjoint(n.input))


def put_back(quantized: onnx.ModelProto, source: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of `quantized` in which the layers `names` compute in float, as they do in `source`, the float graph.

    Quantizers that nothing needs any more go. Raises RecipeError for a name that is no quantized layer, or that the
    float graph does not have.
    """
    layers = {node.name: node for node in source.graph.node if node.op_type in LAYERS}
    unknown = [name for name in names if name not in quantized_layers(quantized) or name not in layers]
    if unknown:
        raise RecipeError(
            f"{unknown[0]!r} cannot be put back to float: it must be a quantized layer that has the same name in the "
            f"float graph; quantized here: {', '.join(quantized_layers(quantized))}"
        )
    model = onnx.ModelProto()
    model.CopyFrom(quantized)
    insert = _FloatInputs(model, source)
    nodes: list[onnx.NodeProto] = []
    for node in quantized.graph.node:
        if node.name in names:
            back = onnx.NodeProto()
            back.CopyFrom(layers[node.name])
            back.input[:] = [insert.of(name, nodes) for name in back.input]
            back.output[:] = node.output
            nodes.append(back)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    remove_dead(model)
    return model


class _FloatInputs:
    """Finds or makes, in a quantized graph, what a node of the float graph reads."""

    def __init__(self, model: onnx.ModelProto, source: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._stored = {tensor.name: tensor for tensor in source.graph.initializer}
        self._makers = {name: node for node in source.graph.node for name in node.output}
        self._nodes = {node.name for node in model.graph.node}
        made = {name for node in model.graph.node for name in node.output}
        self._tensors = made | {port.name for port in model.graph.input}
        self._added: set[str] = set()

    def of(self, name: str, nodes: list[onnx.NodeProto]) -> str:
        """The tensor to read for `name`; what must be computed for it is appended to `nodes`."""
        if not name:
            return name  # an optional input that is left out
        fresh = name + _FLOAT  # ONNX Runtime gives the bias that it dequantizes the name of the float one
        if fresh in self._added:
            return fresh
        if name in self._stored:
            tensor = self._graph.initializer.add()
            tensor.CopyFrom(self._stored[name])
            tensor.name = fresh
        elif name not in self._tensors:
            raise RecipeError(f"the quantized graph lacks {name!r}, which the float layer reads; use another quantizer")
        elif name in self._makers and self._absorbed(self._makers[name]):
            node = onnx.NodeProto()
            node.CopyFrom(self._makers[name])
            node.name += _FLOAT
            # The quantized graph has the tensor under this name, but before it was cut.
            node.input[:] = [name, *(self.of(bound, nodes) for bound in node.input[1:])]
            node.output[:] = [fresh]
            nodes.append(node)
        else:
            return name
        self._added.add(fresh)
        return fresh

    def _absorbed(self, maker: onnx.NodeProto) -> bool:
        return maker.op_type in _ABSORBED and maker.name not in self._nodes


def sensitivity(
    quantized: onnx.ModelProto,
    source: onnx.ModelProto,
    feeds: Sequence[Mapping[str, Array]],
    target: Target,
    tick: Callable[[str], None] = lambda name: None,
) -> list[tuple[str, float]]:
    """By how much less the quantized graph is wrong when one layer alone is put back to float, most helpful first.

    Wrong is the share of the float outputs' energy that the difference has (the inverse of the signal to quantization
    noise ratio), the mean over outputs; so graphs may be compared. `feeds`: rows, batch of one each, that nothing was
    fitted on. `target` runs them. `tick` is called per layer. Raises Unavailable as `open_session` does.
    """
    with tempfile.TemporaryDirectory(prefix="sensitivity-") as folder:
        path = Path(folder) / "graph.onnx"

        def outputs(model: onnx.ModelProto) -> dict[str, Array]:
            save_graph(model, path)
            with runtimes.open_session(target, path, precision="f32") as session:
                rows = [session.run(feed) for feed in feeds]
            return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

        wanted = outputs(source)
        whole = _error(outputs(quantized), wanted)

        def gains() -> Iterator[tuple[str, float]]:
            for name in quantized_layers(quantized):
                yield name, whole - _error(outputs(put_back(quantized, source, [name])), wanted)
                tick(name)

        return sorted(gains(), key=lambda found: -found[1])


def _error(got: Mapping[str, Array], wanted: Mapping[str, Array]) -> float:
    shares = []
    for name, right in wanted.items():
        exact = right.astype(np.float64)
        energy = float(np.square(exact).sum())
        shares.append(float(np.square(got[name] - exact).sum()) / energy if energy else 0.0)
    return float(np.mean(shares))
