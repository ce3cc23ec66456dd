"""Inputs and outputs that stay on a device, on the one that is everywhere: what CUDA uses is run on the CPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import runtimes
from runtimes import Port
from runtimes.__main__ import PROBE, probe_answer, probe_feeds
from runtimes._ort_binding import Bindings


@pytest.fixture
def bindings() -> Bindings:
    with runtimes.open_session("ort:cpu", PROBE) as session:
        ports = (session.inputs, session.outputs)
    options = onnxruntime.SessionOptions()
    for name in ("images", "texts"):
        options.add_free_dimension_override_by_name(name, 1)
    inner = onnxruntime.InferenceSession(str(PROBE), options, providers=["CPUExecutionProvider"])
    return Bindings(onnxruntime, inner, ports, ("cpu", 0))


def feeds(seed: int) -> dict[str, runtimes.Array]:
    rng = np.random.default_rng(seed)
    made = probe_feeds(images=1, texts=1)
    return made | {"image": rng.integers(0, 256, made["image"].shape, dtype=np.uint8)}


def test_answers_as_the_session_does(bindings: Bindings) -> None:
    for seed in range(3):
        got = bindings.run(feeds(seed))
        for name, wanted in probe_answer(feeds(seed)).items():
            np.testing.assert_allclose(got[name], wanted, rtol=0, atol=1e-5)


def test_threads_get_their_own_answers(bindings: Bindings) -> None:
    def work(seed: int) -> None:
        got = bindings.run(feeds(seed))["image_embedding"].copy()
        np.testing.assert_allclose(got, probe_answer(feeds(seed))["image_embedding"], rtol=0, atol=1e-5)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(40)))
    assert 1 <= len(bindings._idle) <= 4


def test_feeds_need_not_be_contiguous(bindings: Bindings) -> None:
    wide = {name: np.repeat(array, 2, axis=-1)[..., ::2] for name, array in feeds(1).items()}
    got = bindings.run(wide)
    np.testing.assert_allclose(got["image_embedding"], probe_answer(feeds(1))["image_embedding"], rtol=0, atol=1e-5)


def test_a_binding_that_failed_is_not_used_again(bindings: Bindings, tmp_path: Path) -> None:
    bindings.run(feeds(1))
    bindings._inputs = {name: Port("float32", port.shape) for name, port in bindings._inputs.items()}
    bindings._idle.clear()
    with pytest.raises(Exception, match=r"\S"):
        bindings.run(feeds(1))
    assert not bindings._idle
