from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import runtimes
from compress.candidates import choose, pick
from compress.export import export_model
from compress.graph import float_weight_quantizers
from compress.steps.quantize import Quantize
from runtimes import RecipeError
from sdk.golden import output_error
from tests.small_models import ANSWERS, save_small, small_model


def test_pick_takes_a_clearly_faster_one_that_is_near_enough() -> None:
    assert pick({"near": (0.001, 1.0), "fast": (0.005, 0.7), "wrong": (0.2, 0.3)}, 0.01) == "fast"


def test_pick_stays_with_the_nearest_when_the_clock_hardly_differs() -> None:
    assert pick({"near": (0.001, 1.0), "noise": (0.005, 0.95)}, 0.01) == "near"


def test_pick_takes_the_nearest_when_none_is_near_enough() -> None:
    assert pick({"a": (0.2, 0.3), "b": (0.05, 9.0)}, 0.01) == "b"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"quantizers": ("magic",)}, "there is no quantizer named 'magic'"),
        ({"quantizers": ()}, r"quantize\.quantizers is empty; choose from: nncf_ptq, ort_static, ort_symmetric"),
        ({"samples": 0}, "samples and held_out must be at least 1"),
        ({"variants": ("int4-trt",)}, "quantize.variants has no 'int4-trt'; choose from: fp16-trt, int8-trt"),
    ],
)
def test_fields_are_checked(fields: dict[str, object], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        Quantize(**fields)  # type: ignore[arg-type]


def test_a_quantizer_that_leaves_float_weights_behind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = export_model(save_small(small_model(), tmp_path / "m"), tmp_path)["fusion"]
    (tmp_path / "student").mkdir()
    monkeypatch.setattr("compress.graph.float_weight_quantizers", lambda _: ("one", "two"))
    rows = questions(12)
    said = (
        r"^ort_static left float weights behind 2 QuantizeLinear nodes of fusion; leave it out of quantize\.quantizers$"
    )
    with pytest.raises(RecipeError, match=said):
        choose("fusion", source, (rows[:8], rows[8:]), ("ort_static",), 0.02, tmp_path)


def questions(count: int) -> list[dict[str, np.ndarray]]:
    """Rows for the fusion of the small model, texts of all lengths."""
    rng = np.random.default_rng(0)
    return [
        {
            "image": rng.normal(size=(1, 1, 16)).astype(np.float32),
            "text": rng.normal(size=(1, 12, 16)).astype(np.float32),
            "mask": (np.arange(12)[None] < 1 + row % 12).astype(np.int64),
        }
        for row in range(count)
    ]


def test_the_fusion_is_quantized_as_every_other_tower(tmp_path: Path) -> None:
    source = export_model(save_small(small_model(), tmp_path / "m"), tmp_path)["fusion"]
    rows = questions(24)
    chosen, measured = choose("fusion", source, (rows[:16], rows[16:]), Quantize().quantizers, 0.01, tmp_path)
    best = measured["fusion.chosen"]
    assert chosen == tmp_path / f"fusion.{best}.onnx"
    assert list(tmp_path.glob("fusion.*_*.onnx")) == [chosen], "what was not chosen is gone"
    assert {f"fusion.{best}.{figure}" for figure in ("distance", "slowness", "ms.ov:cpu", "ms.ort:cpu")} <= set(
        measured
    )
    assert float(measured[f"fusion.{best}.distance"]) < 0.02
    graph = onnx.load(str(chosen))
    assert float_weight_quantizers(graph) == ()
    assert "DequantizeLinear" in {node.op_type for node in graph.graph.node}
    for on in ("ov:cpu", "ort:cpu"):
        with runtimes.open_session(on, source, precision="f32") as exact, runtimes.open_session(on, chosen) as rounded:
            for row in rows[16:]:
                wanted, got = exact.run(row)["logits"], rounded.run(row)["logits"]
                assert got.shape == (1, len(ANSWERS))
                assert output_error("logits", got, wanted) < 0.05
