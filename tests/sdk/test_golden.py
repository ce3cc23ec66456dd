from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

import runtimes
from runtimes import BundleError, Unavailable
from sdk import open_bundle
from sdk.golden import cosine_distance, output_error, softmax, tolerance_of, unit_rows, verify
from tests.bundles import damage, golden_with

HERE = [str(target) for target in runtimes.targets()]


def test_rows_become_units() -> None:
    rows = np.array([[3, 4], [-1e30, 1e30], [1e-30, 0], [0, 0]], np.float32)
    units = unit_rows(rows)
    assert units.dtype == np.float32
    np.testing.assert_allclose(units, [[0.6, 0.8], [-(0.5**0.5), 0.5**0.5], [1, 0], [0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(rows[0], [3, 4])
    assert unit_rows(np.float16([[3, 4]])).dtype == np.float32


def test_cosine_distance_by_hand() -> None:
    one = np.array([[1, 0], [1, 0]], np.float32)
    assert cosine_distance(one, 5 * one) == pytest.approx(0, abs=1e-7)
    assert cosine_distance(one, np.array([[1, 0], [1, 1]], np.float32)) == pytest.approx(1 - 0.5**0.5, abs=1e-7)
    assert cosine_distance(one, np.array([[1, 0], [-1, 0]], np.float32)) == pytest.approx(2, abs=1e-7)
    assert cosine_distance(one, np.array([[0, 0], [1, 0]], np.float32)) == math.inf
    assert cosine_distance(one, np.array([[math.nan, 0], [1, 0]], np.float32)) == math.inf
    assert cosine_distance(one, one[:1]) == math.inf


def test_the_error_of_tokens_is_that_of_a_whole_row() -> None:
    one = np.zeros((2, 2, 2), np.float32)
    one[:, 0, 0] = one[:, 1, 1] = 1
    assert output_error("tokens", one, 3 * one) == pytest.approx(0, abs=1e-7)
    other = one.copy()
    other[1, 1] = (1, 0)
    assert output_error("tokens", one, other) == pytest.approx(0.5, abs=1e-7)
    other[1] = 0
    assert output_error("tokens", one, other) == math.inf
    assert output_error("embedding", one[:, 0], one[:, 0]) == pytest.approx(0, abs=1e-7)


def test_the_error_of_logits_is_that_of_their_probabilities() -> None:
    one = np.array([[0, 0], [0, math.log(3)]], np.float32)
    assert output_error("logits", one, one + 5) == pytest.approx(0, abs=1e-7)  # the same probabilities
    assert output_error("logits", one, np.zeros((2, 2), np.float32)) == pytest.approx(0.25, abs=1e-7)
    assert output_error("logits", np.float32([[1e4, 0]]), np.float32([[0, 1e4]])) == 1
    assert output_error("logits", one, one[:1]) == math.inf
    for bad in (math.nan, math.inf):
        assert output_error("logits", np.float32([[bad, 0]]), one[:1]) == math.inf
        assert output_error("logits", one[:1], np.float32([[bad, 0]])) == math.inf


def test_softmax_by_hand() -> None:
    np.testing.assert_allclose(softmax(np.float32([[0, math.log(3)], [1e4, 0]])), [[0.25, 0.75], [1, 0]], atol=1e-7)


def test_every_variant_passes_on_every_target(colours: Path) -> None:
    verdicts = verify(open_bundle(colours))
    assert [(v.subject, v.target) for v in verdicts[:2]] == [("frames", "sdk"), ("tokens", "sdk")]
    assert {(v.subject, v.target) for v in verdicts[2:]} == {
        (f"{tower} {variant}", target)
        for tower in ("image", "text", "fusion")
        for variant in ("fp32", "int8")
        for target in HERE
    }
    assert all(verdict.passed and verdict.error <= verdict.tolerance for verdict in verdicts)
    assert all(verdict.compute != "-" for verdict in verdicts)


@pytest.mark.parametrize(("port", "error"), [("image__int8__tokens", 1.8), ("fusion__int8__logits", 0.9)])
def test_a_wrong_output_of_any_port_fails_its_variant(colours: Path, tmp_path: Path, port: str, error: float) -> None:
    altered = open_bundle(colours).golden["out/" + port.replace("__", "/")].copy()
    altered[4] = -altered[4]
    path = damage(colours, tmp_path / "b", {"golden.npz": golden_with(colours, **{f"out__{port}": altered})})
    for verdict in verify(open_bundle(path)):
        assert verdict.passed == (verdict.subject != " ".join(port.split("__")[:2]))
        assert verdict.passed or verdict.error > error


@pytest.mark.parametrize("name", ["feed__fusion__image", "feed__fusion__text", "feed__fusion__mask"])
def test_a_fusion_tower_without_feeds_cannot_prove_itself(colours: Path, tmp_path: Path, name: str) -> None:
    path = damage(colours, tmp_path / "b", {"golden.npz": golden_with(colours, **{name: None})})
    message = f"golden.npz lacks '{name.replace('__', '/')}', so fusion fp32 cannot prove itself"
    with pytest.raises(BundleError, match=message):
        verify(open_bundle(path))


def test_a_bundle_without_fusion_verifies(plain: Path) -> None:
    verdicts = verify(open_bundle(plain))
    assert len(verdicts) == 2 + 4 * len(HERE)
    assert all(verdict.passed for verdict in verdicts)


@pytest.mark.parametrize("row", [0, 4, 8])
def test_one_wrong_row_fails_its_variant_only(colours: Path, tmp_path: Path, row: int) -> None:
    golden = dict(open_bundle(colours).golden)
    altered = golden["out/image/int8/embedding"].copy()
    altered[row] = -altered[row]
    path = damage(colours, tmp_path / "b", {"golden.npz": golden_with(colours, out__image__int8__embedding=altered)})
    for verdict in verify(open_bundle(path)):
        assert verdict.passed == (verdict.subject != "image int8")
        assert verdict.passed or verdict.error == pytest.approx(2, abs=0.05)


def test_frames_and_tokens_that_this_sdk_makes_otherwise_fail(colours: Path, tmp_path: Path) -> None:
    golden = open_bundle(colours).golden
    near, far = golden["feed/image/image"].copy(), golden["feed/image/image"].copy()
    near[6, 0, 0, 0] ^= 1  # raw/6 and raw/7 are larger than the model's size, and so are there
    far[7, 3, 3, 1] += 2
    ids = golden["feed/text/ids"].copy()
    ids[1, 0] += 1
    for name, feed, error, passed in (("near", near, 1, True), ("far", far, 2, False)):
        path = damage(colours, tmp_path / name, {"golden.npz": golden_with(colours, feed__image__image=feed)})
        frames = verify(open_bundle(path))[0]
        assert (frames.subject, frames.error, frames.passed) == ("frames", error, passed)
    path = damage(colours, tmp_path / "ids", {"golden.npz": golden_with(colours, feed__text__ids=ids)})
    tokens = verify(open_bundle(path))[1]
    assert (tokens.subject, tokens.error, tokens.passed) == ("tokens", 1, False)


@pytest.mark.parametrize(
    "arrays",
    [
        {"texts": None},
        {"feed__image__image": None},
        {"raw__6": None, "raw__7": None},
        {"feed__text__mask": None},
        {"raw__0": np.zeros((16, 16), np.uint8)},
        {"raw__0": np.zeros((16, 16, 3), np.float32)},
        {"feed__image__image": np.zeros((9, 8, 8, 3), np.uint8)},
        {"feed__image__image": np.zeros((1, 16, 16, 3), np.uint8)},
        {"feed__text__ids": np.zeros((3, 6), np.int64)},
        {"feed__image__image": np.array(1)},
    ],
)
def test_feeds_without_their_origin(colours: Path, tmp_path: Path, arrays: dict[str, np.ndarray | None]) -> None:
    path = damage(colours, tmp_path / "b", {"golden.npz": golden_with(colours, **arrays)})
    with pytest.raises(BundleError, match=re.escape("golden.npz lacks the raw frames and texts of its feeds: ")):
        verify(open_bundle(path))


def test_missing_outputs_are_an_error_not_a_pass(colours: Path, tmp_path: Path) -> None:
    path = damage(colours, tmp_path / "b", {"golden.npz": golden_with(colours, out__text__int8__embedding=None)})
    with pytest.raises(
        BundleError, match=r"golden\.npz lacks 'out/text/int8/embedding', so text int8 cannot prove itself"
    ):
        verify(open_bundle(path))


def test_a_target_that_does_not_open_is_a_failure_with_its_reason(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "targets", lambda: (runtimes.parse_target("ov:tpu"),))
    verdicts = verify(open_bundle(colours))[2:]
    assert len(verdicts) == 6
    for verdict in verdicts:
        assert (verdict.passed, verdict.compute, verdict.error) == (False, "-", math.inf)
        assert verdict.note


def test_tolerance_is_looked_up_by_compute_then_by_star(colours: Path, tmp_path: Path) -> None:
    bundle = open_bundle(colours)
    assert tolerance_of(bundle, "image", "fp32", "f32") == 1e-5
    assert tolerance_of(bundle, "image", "fp32", "bf16") == 2e-2
    assert tolerance_of(bundle, "image", "int8", "int8+bf16") == 2e-2
    bare = open_bundle(
        damage(colours, tmp_path / "b", change=lambda t: t["tolerance"].update(image={"fp32": {"f32": 1}}))
    )
    assert tolerance_of(bare, "image", "fp32", "f32") == 1
    for variant, compute in (("fp32", "bf16"), ("int8", "f32")):
        with pytest.raises(BundleError, match=f"states no tolerance for image {variant} in {compute}"):
            tolerance_of(bare, "image", variant, compute)


def test_a_variant_nobody_has(colours: Path) -> None:
    with pytest.raises(Unavailable, match="has no 'fp8' image graph"):
        open_bundle(colours).graph("image", "fp8")
