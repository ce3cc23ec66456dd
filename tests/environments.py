"""Packages that do not go with those of this environment, installed from the index into folders of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def install(folder: Path, *requirements: str, dependencies: bool = False) -> Path:
    """`pip install --target folder requirements`, once: a folder that is there is taken as it is."""
    if not folder.is_dir():
        building = folder.with_name(folder.name + ".tmp")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        extra = [] if dependencies else ["--no-deps"]
        subprocess.run([*command, *extra, "--target", str(building), *requirements], check=True, timeout=1800)
        building.rename(folder)
    return folder


def run_with(
    code: str, *arguments: str, paths: tuple[Path, ...] = (), libraries: Path | None = None, site: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process that finds packages in `paths` first, and shared libraries in `libraries`; without
    `site`, packages of this environment are not found."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*paths, ROOT)))}
    if libraries is not None:
        environment["LD_LIBRARY_PATH"] = str(libraries)
    command = [sys.executable, *([] if site else ["-S"]), "-W", "ignore", "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
