"""`python -m runtimes`, the doctor: every runtime and device, PASS by running a tiny graph, or why not, what to do."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

import numpy as np

import runtimes
from runtimes import Array, PupilError
from runtimes._advice import advice, look

PROBE = Path(__file__).with_name("probe.onnx")
# Arithmetic narrower than float32 is allowed here; whether it is good enough is the bundle's golden test, not ours.
TOLERANCE = 2e-2


def probe_feeds(images: int = 2, texts: int = 3) -> dict[str, Array]:
    """Feeds for probe.onnx: image uint8 (images, 8, 8, 3), ids and mask int64 (texts, 4)."""
    rng = np.random.default_rng(7)
    return {
        "image": rng.integers(0, 256, (images, 8, 8, 3), dtype=np.uint8),
        "ids": rng.integers(0, 16, (texts, 4), dtype=np.int64),
        "mask": (np.arange(4) < rng.integers(1, 5, (texts, 1))).astype(np.int64),
    }


def probe_answer(feeds: dict[str, Array]) -> dict[str, Array]:
    """What probe.onnx computes, in numpy: mean of pixels/255 through a 1x1 convolution, and a masked sum of rows."""
    kernel = (np.arange(12, dtype=np.float32).reshape(4, 3) - 6) / 8
    table = np.arange(64, dtype=np.float32).reshape(16, 4) / 32
    pixels = feeds["image"].astype(np.float32) / 255
    return {
        "image_embedding": np.maximum(pixels @ kernel.T, 0).mean(axis=(1, 2)),
        "text_embedding": (table[feeds["ids"]] * feeds["mask"][..., None]).sum(axis=1),
    }


def probe_for(target: str, folder: Path) -> Path:
    """The probe in the form that a target opens: probe.onnx, or what its runtime's `write_probe` puts into `folder`.

    Raises Unavailable for an unknown runtime, or one whose engine is not installed.
    """
    runtime = runtimes.parse_target(target).runtime
    ending = runtimes.opens(runtime)
    if ending == PROBE.suffix:
        return PROBE
    path = folder / f"probe{ending}"
    importlib.import_module(f"runtimes.{runtime}").write_probe(path)
    return path


def examine(target: str) -> tuple[bool, str]:
    """Run the probe on one target. Returns (passed, what happened)."""
    feeds = probe_feeds()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="pupil-probe-") as folder,
            runtimes.open_session(target, probe_for(target, Path(folder)), batch=None) as session,
        ):
            answer = session.run(feeds)
            compute = session.compute
    except PupilError as error:
        return False, str(error)
    # np.max, unlike max, keeps a NaN; and no comparison with a NaN is true.
    worst = float(np.max([np.abs(answer[name] - want).max() for name, want in probe_answer(feeds).items()]))
    if not worst <= TOLERANCE:
        return False, f"opens, but answers wrong by {worst:.2g} (at most {TOLERANCE:g}); do not use it"
    return True, f"computes in {compute}, largest error {worst:.1e}"


def main(arguments: list[str] | None = None) -> int:
    """Print a line per runtime and device; exit code 0 when one that opens bundles passes, else 1."""
    argparse.ArgumentParser(prog="python -m runtimes", description=__doc__).parse_args(arguments)
    passed = 0
    for runtime in runtimes.names():
        try:
            places = runtimes.devices(runtime)
        except PupilError as error:
            print(f"----  {runtime:<12} {error}")
            continue
        for place in places:
            good, text = examine(f"{runtime}:{place}")
            passed += good and runtimes.opens(runtime) == PROBE.suffix  # what cannot open a bundle helps no app
            print(f"{'PASS' if good else 'FAIL'}  {f'{runtime}:{place}':<12} {text}")
    for line in advice(look()):
        print(f"WARN  {line}")
    if not passed:
        print("no engine works here; run: pip install 'edge-pupil[openvino]'", file=sys.stderr)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
