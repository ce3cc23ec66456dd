"""The machine that a process runs on: what makes a measured choice valid, and the memory that the process has."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

# Files of Linux that change with a driver, and folders that list devices which engines may use.
_DRIVERS = (Path("/proc/driver/nvidia/version"),)
_DEVICES = (Path("/dev/dri"), Path("/dev/accel"))


def fingerprint() -> str:
    """sha256 (hex) of what engines' speed here rests on: processor and its extensions, cores that this process may use,
    system, accelerators and their driver."""
    # Not platform.processor(): it starts a program on Linux and macOS.
    windows = os.environ.get("PROCESSOR_IDENTIFIER", "")
    facts = [platform.system(), platform.release(), platform.machine(), windows, str(cores()), *_processor()]
    for path in _DRIVERS:
        facts.append(path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "")
    for folder in _DEVICES:
        facts += sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [""]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resident() -> tuple[int, int]:
    """Resident memory of this process in bytes: now, and at its peak (which stands for both where only it is told)."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux its maximum outlives exec, so a child would report the memory of its parent.
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        return tuple(1024 * int(lines[name].split()[0]) for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
    if sys.platform == "win32":
        return _resident_windows()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, peak


def _resident_windows() -> tuple[int, int]:
    """From GetProcessMemoryInfo: working set, and its peak."""
    import ctypes

    counters = (ctypes.c_size_t * 9)()  # 64 bit: two DWORDs, PeakWorkingSetSize, WorkingSetSize
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulong]
    kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), counters, ctypes.sizeof(counters))
    return int(counters[2]), int(counters[1])


def _processor() -> list[str]:
    """The lines of /proc/cpuinfo that say the first processor's name and extensions; none where there is no such file.

    The file is long where cores are many, and the first processor stands first.
    """
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return []
    found = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.strip():
                break
            if line.split(":")[0].strip() in {"model name", "flags", "Features", "CPU part"}:
                found.append(line.strip())
    return found
