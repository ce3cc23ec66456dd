"""One contender of `benchmarks/peers.py` in a process of its own; no part of this project but the SDK, and that only
where the contender is ours: another environment's Python runs this file too.

It reads one JSON object per line (what to do) and answers each with one: `export`, `open`, `time`, `answer`, `memory`;
an error is `{"error": text}`, and ends it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("edge-pupil", "openvino", "optimum-intel", "optimum", "transformers", "torch", "numpy")
TIMED = 8  # frames that a clock walks through
# A frame, uint8 (H, W, 3) RGB, and how many labels, the first ones: their probabilities, float64 (labels,).
Ask = Callable[[Any, int], Any]


def main() -> None:
    """Answer orders until there are no more."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    contender: Contender | None = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["do"] == "export":
                said: dict[str, Any] = _export(Path(order["source"]), Path(order["out"]))
            elif contender is None:
                contender = Contender(order)
                said = contender.opened
            else:
                said = contender.do(order)
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
        print(json.dumps(said), file=answers, flush=True)
        if "error" in said:
            return


class Contender:
    """What is measured, opened. `order`: `kind` ("ours", "optimum", "transformers"), `path`, `precision` ("fp32": its
    engine computes in f32; None: as it likes), `texts`, of which an order takes the first ones, and `frames`, .npy
    files of uint8 (H, W, 3) RGB."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        import numpy as np

        self._frames: Sequence[str] = order["frames"]
        self._timed = [np.load(path, allow_pickle=False) for path in self._frames[:TIMED]]
        opens = {"ours": _ours, "optimum": _optimum, "transformers": _transformers}[order["kind"]]
        started = time.perf_counter_ns()
        self._ask, self._exactly = opens(order)
        self._ask(self._timed[0], len(order["texts"]))
        spent = (time.perf_counter_ns() - started) / 1e6
        self.opened = {"load_ms": spent, "versions": _versions()}

    def do(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """`time`: milliseconds of a frame in memory to probabilities, after one that is not timed; `answer`:
        probabilities of all frames; `memory`: of the process, in MB of 1e6 bytes, after a stream of frames."""
        import numpy as np

        if order["do"] == "time":
            frame = self._timed[order["turn"] % len(self._timed)]
            self._ask(frame, order["labels"])
            before = time.perf_counter_ns()
            self._ask(frame, order["labels"])
            return {"ms": (time.perf_counter_ns() - before) / 1e6}
        if order["do"] == "answer":
            rows = (self._exactly(np.load(path, allow_pickle=False), order["labels"]) for path in self._frames)
            return {"probabilities": [np.asarray(row, np.float64).tolist() for row in rows]}
        for turn in range(order["calls"]):
            self._ask(self._timed[turn % len(self._timed)], order["labels"])
        held, peak = _resident()
        return {"held_mb": held / 1e6, "peak_mb": peak / 1e6}


def _ours(order: Mapping[str, Any]) -> tuple[Ask, Ask]:
    """The SDK on OpenVINO. The labels are in its bank, each by its text alone, embedded once."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import sdk

    student = sdk.load(order["path"], on="ov:cpu", precision=order["precision"])
    student.labels.replace({text: [text] for text in order["texts"]})
    chosen = {count: order["texts"][:count] for count in range(1, len(order["texts"]) + 1)}

    def ask(frame: Any, count: int, k: int = 1) -> Any:
        return student.classify(frame, chosen[count], k)

    def exactly(frame: Any, count: int) -> Any:
        scores = {answer.label: answer.score for answer in ask(frame, count, count)}
        return [scores[text] for text in chosen[count]]

    return ask, exactly


def _optimum(order: Mapping[str, Any]) -> tuple[Ask, Ask]:
    from optimum.intel import OVModelForZeroShotImageClassification

    config = {} if order["precision"] is None else {"INFERENCE_PRECISION_HINT": "f32"}
    model = OVModelForZeroShotImageClassification.from_pretrained(order["path"], ov_config=config, compile=True)
    return _theirs(model, order)


def _transformers(order: Mapping[str, Any]) -> tuple[Ask, Ask]:
    import torch
    import transformers

    auto: Any = transformers
    model = auto.AutoModel.from_pretrained(order["path"], local_files_only=True, dtype=torch.float32).eval()
    return _theirs(model, order)


def _theirs(model: Any, order: Mapping[str, Any]) -> tuple[Ask, Ask]:
    """Texts become tokens once, before any clock, padded as the library's own pipeline does. Timed with the image
    processor that comes unasked; answers through the one that resizes by Pillow, as ours does."""
    import torch
    import transformers

    auto: Any = transformers
    local = {"local_files_only": True}
    tokenizer = auto.AutoTokenizer.from_pretrained(order["path"], **local)
    default, pillow = (
        auto.AutoImageProcessor.from_pretrained(order["path"], **local, **more) for more in ({}, {"backend": "pil"})
    )
    sigmoid = "siglip" in str(model.config.model_type)
    tokens: dict[int, Any] = {}

    def ask(processor: Any, frame: Any, count: int) -> Any:
        if count not in tokens:
            padding = "max_length" if sigmoid else True
            tokens[count] = tokenizer(order["texts"][:count], padding=padding, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            found = model(**processor(images=frame, return_tensors="pt"), **tokens[count]).logits_per_image[0].double()
            return (found.sigmoid() if sigmoid else found.softmax(0)).numpy()

    return partial(ask, default), partial(ask, pillow)


def _export(source: Path, out: Path) -> dict[str, Any]:
    """optimum-intel's own export of a checkpoint's folder, float32 weights, as it does it; no code that comes with the
    checkpoint is run."""
    from optimum.intel import OVModelForZeroShotImageClassification
    from transformers import AutoImageProcessor, AutoTokenizer

    model = OVModelForZeroShotImageClassification.from_pretrained(
        source, export=True, compile=False, load_in_8bit=False, trust_remote_code=False, local_files_only=True
    )
    for part in (model, *(each.from_pretrained(source) for each in (AutoTokenizer, AutoImageProcessor))):
        part.save_pretrained(out)
    return {"versions": _versions()}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _resident() -> tuple[int, int]:
    """Resident bytes now, and at the peak; see sdk/machine.py, which is not here in another environment."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        return 1024 * int(lines["VmRSS"].split()[0]), 1024 * int(lines["VmHWM"].split()[0])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, peak


if __name__ == "__main__":
    # This folder's own names are no top-level ones.
    sys.path[:] = [each for each in sys.path if Path(each).resolve() != Path(__file__).resolve().parent]
    main()
