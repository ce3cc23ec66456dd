"""Inputs and outputs of an ONNX Runtime session that stay on its device between runs.

Without, ONNX Runtime allocates device memory for every feed and copies what is on the host node by node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from runtimes._session import Array, Port


class Bindings:
    """As many bindings as threads are inside `run` at once. For sessions whose input shapes are all fixed."""

    def __init__(self, engine: Any, inner: Any, ports: tuple[Mapping[str, Port], ...], place: tuple[str, int]) -> None:
        """`ports`: inputs and outputs; `place`: device and index, as ONNX Runtime says them ("cuda", 0)."""
        self._engine, self._inner, self._place = engine, inner, place
        self._inputs, self._outputs = ports
        self._idle: deque[tuple[Any, dict[str, Any]]] = deque()  # its pop and append are atomic, and need no lock

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Feeds that were checked to arrays of the caller's own. Raises what ONNX Runtime raises."""
        try:
            binding, values = self._idle.pop()
        except IndexError:
            binding, values = self._bound()
        for name, array in feeds.items():
            values[name].update_inplace(np.ascontiguousarray(array))
        self._inner.run_with_iobinding(binding)
        results = binding.copy_outputs_to_cpu()
        self._idle.append((binding, values))  # one that failed is not used again
        return dict(zip(self._outputs, results, strict=True))

    def _bound(self) -> tuple[Any, dict[str, Any]]:
        device, index = self._place
        binding, values = self._inner.io_binding(), {}
        for name, port in self._inputs.items():
            values[name] = self._engine.OrtValue.ortvalue_from_shape_and_type(
                list(port.shape), np.dtype(port.dtype).type, device, index
            )
            binding.bind_ortvalue_input(name, values[name])
        for name in self._outputs:
            binding.bind_output(name, device, index)
        return binding, values
