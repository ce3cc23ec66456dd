"""Planting runtimes made for tests (tests/planted) beside the real ones, to be found by their names like these, and
bundles that are for them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import runtimes
from tests.bundles import damage

PLANTED = Path(__file__).with_name("planted")


@contextmanager
def planted() -> Iterator[None]:
    """Let `runtimes` find what lies in tests/planted."""
    path, before = runtimes.__path__, set(sys.modules)
    runtimes.__path__ = [*path, str(PLANTED)]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        runtimes.__path__ = path
        for name in set(sys.modules) - before:
            if name.startswith("runtimes.") and (PLANTED / f"{name.removeprefix('runtimes.')}.py").exists():
                del sys.modules[name]


def module(name: str) -> ModuleType:
    """A planted runtime's module, to read or change its settings."""
    return importlib.import_module(f"runtimes.{name}")


def bundle_for(bundle: Path, out: Path, *families: str, variants: tuple[str, ...] = ("fp32",)) -> Path:
    """A copy whose towers have these variants, for these runtimes in this order."""

    def change(table: dict[str, Any]) -> None:
        for tower, graphs in table["graphs"].items():
            table["graphs"][tower] = {v: {**graphs[v], "families": list(families)} for v in variants}

    return damage(bundle, out, change=change)
