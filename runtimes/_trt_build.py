"""A graph to a TensorRT plan: strongly typed, no precision flags, no calibrator. The types in the graph are the types.

TensorRT comes in as an argument: only runtimes/trt.py imports it. tests/runtimes/test_trt_contract.py reads this file
and holds every attribute, method and enum against the real bindings of 10.16 and 11.4, by the names of variables.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtimes._session import Progress

logger = logging.getLogger(__name__)

# What is built differs with what we ask for below; a number in the cache's key, to be raised with every change here.
RECIPE = 1
# Rows that an engine with a free batch takes, and those it is fastest for.
MAX_ROWS, BEST_ROWS = 32, 8

# name -> (smallest, best, largest shape)
Shapes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]


class BuildError(RuntimeError):
    """A graph that TensorRT does not build; the text is its own. The runtime translates it."""


def make_log(trt: Any) -> Any:
    """A log for TensorRT: warnings and worse go to `logging`; `log.errors` keeps the errors' texts."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(msg)
            elif severity == trt.ILogger.Severity.WARNING:
                logger.info("TensorRT: %s", msg)

    return Log()


def make_monitor(trt: Any, progress: Progress) -> Any:
    """A progress monitor: steps of the outermost phase are told. What TensorRT calls may not raise, so an error of
    `progress` stops the build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._outer: tuple[str, int] | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if self._outer is None:
                self._outer = phase_name, max(1, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if self._outer is None or phase_name != self._outer[0]:
                return True
            try:
                return bool(progress(min(1.0, (step + 1) / self._outer[1])))
            except Exception:
                logger.exception("the progress of a TensorRT build could not be told; it is stopped")
                return False

        def phase_finish(self, phase_name: str) -> None:
            if self._outer is not None and phase_name == self._outer[0]:
                self._outer = None

    return Monitor()


class Build:
    """A parsed network and what is asked of the builder."""

    def __init__(self, trt: Any, path: Path, log: Any) -> None:
        """Raises BuildError with the parser's words."""
        self._trt = trt
        self._log = log
        self._builder = builder = trt.Builder(log)
        self._network = network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self._parser = parser = trt.OnnxParser(network, log)  # it owns weights of the network
        if not parser.parse_from_file(str(path)):
            raise BuildError(parser.get_error(0).desc() if parser.num_errors else "the parser says nothing")
        self._config = config = builder.create_builder_config()
        # TF32 has 10 bits of mantissa, and `compute` says f32.
        config.clear_flag(trt.BuilderFlag.TF32)

    def shapes(self, batch: int | None) -> Shapes:
        """Smallest, best and largest shape per input: `batch` rows, or any number up to MAX_ROWS where it is free."""
        network = self._network
        rows = (1, BEST_ROWS, MAX_ROWS) if batch is None else (batch, batch, batch)
        found = {}
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            sizes = tuple(tensor.shape)
            small, best, large = (tuple(count if d < 0 else d for d in sizes) for count in rows)
            found[tensor.name] = small, best, large
        return found

    def plan(self, shapes: Shapes, timing: bytes | None, progress: Progress | None) -> tuple[bytes, bytes]:
        """The serialized engine, and the timing cache that grew with it. Takes minutes on small devices.

        Raises BuildError with TensorRT's words, or because `progress` said stop.
        """
        builder, network, config = self._builder, self._network, self._config
        profile = builder.create_optimization_profile()
        for name, (small, best, large) in shapes.items():
            profile.set_shape(name, small, best, large)
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"it refuses these shapes: {dict(shapes)}")
        cache = config.create_timing_cache(timing or b"")
        # False: one that was made on another device is not taken.
        if cache is None or not config.set_timing_cache(cache, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)
        if progress is not None:
            config.progress_monitor = make_monitor(self._trt, progress)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise BuildError(self._log.errors[-1] if self._log.errors else "the build was stopped")
        grown = config.get_timing_cache()
        return bytes(plan), bytes(grown.serialize())
