"""Which NVIDIA GPUs this machine has. Nothing of CUDA is loaded into this process to find out."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes._cuda_probe import answer as ask_here
from runtimes._errors import Unavailable

_PROBE = Path(__file__).with_name("_cuda_probe.py")
_PATIENCE = 60.0  # seconds; a driver that sleeps wakes within some


@dataclass(frozen=True)
class Gpu:
    """A GPU. `driver`: its driver's version, empty where that is not told. `cuda`: the CUDA that the driver speaks,
    1000 x major + 10 x minor. `capability`: (major, minor)."""

    index: int
    name: str
    capability: tuple[int, int]
    driver: str
    cuda: int


def gpus() -> tuple[Gpu, ...]:
    """NVIDIA GPUs of this machine, asked once, in a child process.

    Raises Unavailable with the driver's own reason when there is none.
    """
    said = _asked()
    if "error" in said:
        raise Unavailable(f"no NVIDIA GPU can be used: {said['error']}; install its driver, then run: nvidia-smi")
    if not said["gpus"]:
        raise Unavailable("the NVIDIA driver finds no GPU; run: nvidia-smi")
    return tuple(
        Gpu(index, each["name"], tuple(each["capability"]), said["driver"], said["cuda"])
        for index, each in enumerate(said["gpus"])
    )


@functools.cache
def _asked() -> dict[str, Any]:
    """What the probe says. Raises Unavailable when it says nothing."""
    if getattr(sys, "frozen", False):  # the executable is the app: it would start again, and not run a script
        return ask_here()
    # -I: neither PYTHON* variables nor the working folder may bring other code into the probe.
    command = [sys.executable, "-I", str(_PROBE)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        said: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"asking the NVIDIA driver in a child process failed: {error}; run: nvidia-smi") from error
    except ValueError as error:
        raise Unavailable(
            f"asking the NVIDIA driver ended the process that asked (exit code {done.returncode}); install the driver "
            "again, then run: nvidia-smi"
        ) from error
    return said
