"""One epoch of everything, as a user runs it: what does not depend on accuracy must hold already."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import runtimes
import sdk
from benchmarks.evalset import read_evalset
from compress.draft import Draft
from compress.graph import float_weight_quantizers
from compress.report import main as report_main
from compress.steps.gate import Gate
from compress.steps.pack import Pack
from runtimes import GateFailed, RecipeError
from sdk.__main__ import main as sdk_main
from sdk.bundle import open_bundle
from sdk.golden import output_error, tolerance_of
from tests.conftest import distill
from tests.runs import copy_run

pytestmark = pytest.mark.slow
IMAGES, QUESTIONS, LABELLED = 250, 2449, 227  # of the test split that the short run looks at


@pytest.fixture(scope="module")
def out(short_run: Path) -> Path:
    return short_run / "out" / "easy_vqa"


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return found


def test_it_prints_a_table_and_what_it_made(short_run: Path, out: Path) -> None:
    printed = (short_run / "printed.txt").read_text(encoding="utf-8")
    assert "zero-shot top-1" in printed
    for name in ("teacher", "student", "eval", "report.json", "report.md"):
        assert str(out / name) in printed
        assert (out / name).exists()
    assert not list((out / ".work").glob("*.tmp"))


def test_the_report_holds_every_figure_with_n_and_interval(report: dict[str, Any]) -> None:
    assert {"seed", "versions", "seconds", "baselines", "accuracy", "parity", "size", "speed"} <= report.keys()
    assert list(report["seconds"]) == ["teach", "embed", "prune", "distill", "quantize", "gate", "pack"]
    assert report["baselines"]["chance_top1"] == pytest.approx(1 / 24)
    guess = report["baselines"]["question_only"]
    assert guess["n"] == QUESTIONS
    assert 0.6 < guess["value"] < 0.75
    for row in report["accuracy"]:
        assert row["top1"]["n"] == LABELLED
        assert row["top1"]["low"] <= row["top1"]["value"] <= row["top1"]["high"]
        assert row["map"]["n"] == IMAGES
        assert row["top1_by_text"]["n"] == LABELLED
        assert row["answers"]["n"] == QUESTIONS
    cells = {(row["model"], row["precision"], row["target"]) for row in report["accuracy"]}
    assert len(cells) == len(report["accuracy"]) == 6
    assert all("int8" in row["ran_on"]["image"] for row in report["accuracy"] if row["precision"] == "int8")


def test_one_epoch_is_far_above_chance(report: dict[str, Any]) -> None:
    assert min(row["top1"]["value"] for row in report["accuracy"]) > 0.25
    # 67 % can be guessed without a look at the image.
    assert min(row["answers"]["value"] for row in report["accuracy"]) > 0.68


def test_engines_agree_on_float_graphs(report: dict[str, Any]) -> None:
    rows = [row for row in report["parity"] if row["precision"] == "fp32"]
    assert {row["model"] for row in rows} == {"teacher", "student"}
    for row in rows:
        assert row["cosine_min"] >= 0.9999
        assert row["text_cosine_min"] >= 0.9999
        assert row["same_top1"] >= 0.995


def test_every_embedding_has_unit_norm(report: dict[str, Any]) -> None:
    assert max(row["norm_error"] for row in report["accuracy"]) <= 1e-5


def test_the_student_is_small(report: dict[str, Any]) -> None:
    size = report["size"]
    assert size["params"]["student"]["image"] <= size["params"]["teacher"]["image"] / 2
    assert size["bytes"]["student_int8"] <= size["bytes"]["teacher_fp32"] / 6


def test_unseen_words_tokenize(report: dict[str, Any], out: Path) -> None:
    assert len(report["words"]) == 10
    assert set(report["words"].values()) == {0}
    with sdk.load(out / "student", budget_s=0) as student:
        frame = out / "eval/images/0.png"
        by_label = {a.label: a.unknown for a in student.task("classify")(frame, ["a submarine", "漢字 漢字"], 2)}
        assert by_label["a submarine"] == 0
        assert by_label["漢字 漢字"] > 0


def test_the_bundles_verify_and_slim(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for who in ("teacher", "student"):
        assert sdk_main(["verify", str(out / who)]) == 0
    printed = capsys.readouterr().out
    towers, engines, sdk_checks = 3, 2, 2
    assert printed.count("PASS") == 2 * sdk_checks + towers * engines + 2 * towers * engines  # fp32; fp32 and int8
    assert "FAIL" not in printed
    assert sdk_main(["slim", str(out / "student"), "--for", "ov:cpu", "--out", str(tmp_path / "slim")]) == 0
    assert sdk_main(["verify", str(tmp_path / "slim")]) == 0
    assert sdk_main([str(tmp_path / "slim"), str(out / "eval/images/3.png"), "--labels", "red thing,blue thing"]) == 0
    assert sdk_main([str(tmp_path / "slim"), str(out / "eval/images/3.png"), "--ask", "what color is it?"]) == 0


def test_graphs_are_what_every_engine_takes(out: Path) -> None:
    for who in ("teacher", "student"):
        for path in (out / who).glob("*.onnx"):
            model = onnx.load(str(path))
            kinds = {node.op_type for node in model.graph.node}
            assert model.ir_version <= 9
            assert all(entry.version <= 18 for entry in model.opset_import)
            assert not kinds & {"Shape", "BatchNormalization", "Identity", "Pad"}, path
            assert float_weight_quantizers(model) == ()


def test_golden_outputs_notice_swapped_colour_channels(out: Path) -> None:
    bundle = open_bundle(out / "student")
    feeds = bundle.golden["feed/image/image"]
    path = bundle.file(bundle.graph("image", "int8").file)
    with runtimes.open_session("ov:cpu", path) as session:
        rows = [session.run({"image": np.ascontiguousarray(feed[None, :, :, ::-1])})["embedding"] for feed in feeds]
        allowed = tolerance_of(bundle, "image", "int8", session.compute)
    assert output_error("embedding", np.concatenate(rows), bundle.golden["out/image/int8/embedding"]) > 2 * allowed


def test_golden_is_small_and_has_a_worst_case(out: Path) -> None:
    bundle = open_bundle(out / "student")
    assert bundle.file("golden.npz").stat().st_size <= 1.5e6
    assert len(bundle.golden["feed/image/image"]) == 9
    raw = {name for name in bundle.golden if name.startswith("raw/")}
    assert raw == {"raw/0", "raw/1"}, "those that exercise the resize; the others have the model's size"


def test_quality_stands_in_the_bundle(out: Path, report: dict[str, Any]) -> None:
    quality = open_bundle(out / "student").manifest.quality
    int8 = [r for r in report["accuracy"] if (r["precision"], r["target"]) == ("int8", "ov:cpu")]
    assert quality["zero_shot.top1"]["student"].value == int8[0]["top1"]["value"]
    assert quality["zero_shot.top1"].keys() == {"teacher", "student"}


def test_the_teachers_programs_lie_beside_its_bundle(out: Path) -> None:
    frame = np.zeros((1, 64, 64, 3), np.uint8)
    with (
        runtimes.open_session("pt:cpu", out / "teacher.pt2") as program,
        runtimes.open_session("ort:cpu", out / "teacher/image.fp32.onnx") as graph,
    ):
        assert program.inputs == graph.inputs
        assert program.outputs.keys() == graph.outputs.keys()
        for port, rows in program.run({"image": frame}).items():
            np.testing.assert_allclose(rows, graph.run({"image": frame})[port], atol=1e-4)
    assert {path.name for path in out.glob("*.pt2")} == {"teacher.pt2", "teacher.text.pt2", "teacher.fusion.pt2"}


def test_the_evaluation_folder_is_the_test_split(out: Path) -> None:
    evalset = read_evalset(out / "eval")
    assert (len(evalset.images), len(evalset.questions), len(evalset.labels)) == (IMAGES, QUESTIONS, 24)
    assert (evalset.label >= 0).sum() == LABELLED


def test_the_student_carries_its_card(out: Path) -> None:
    bundle = open_bundle(out / "student")
    assert bundle.manifest.card == "card.md"
    text = bundle.file("card.md").read_text(encoding="utf-8")
    assert text.startswith("# easy_vqa-student\n")
    assert "- data: easy_vqa, MIT (PyPI easy-vqa 1.0); 3600 images to train, 400 to choose, 250 to test\n" in text
    assert f"| zero-shot top-1 (24 prompts, n={LABELLED}) |" in text
    assert "It has no answer for things that are none of its labels: it always names one." in text
    worst = re.findall(r"\((\d+) of (\d+) wrong\)", text)
    assert worst == sorted(worst, key=lambda item: -int(item[0]) / int(item[1]))
    assert open_bundle(out / "teacher").manifest.card is None


def test_resume_does_nothing_again_and_brings_back_what_is_missing(short_run: Path, tmp_path: Path) -> None:
    copy_run(short_run / "out", tmp_path / "out")
    refused = distill(tmp_path)
    assert refused.returncode == 2
    assert "holds an earlier run; add --resume" in refused.stderr
    assert refused.stderr.strip().count("\n") == 0
    again = distill(tmp_path, "--resume")
    assert again.returncode == 0, again.stderr
    assert len(re.findall(r"done before", again.stderr)) == 7
    shutil.rmtree(tmp_path / "out/easy_vqa/student")
    mended = distill(tmp_path, "--resume")
    assert mended.returncode == 0, mended.stderr
    assert len(re.findall(r"done before", mended.stderr)) == 6
    assert (tmp_path / "out/easy_vqa/student/bundle.json").exists()


def test_the_gate_refuses_a_ruined_student(out: Path, tmp_path: Path) -> None:
    """The gate looks at the deployed int8 graph: weights shuffled after quantization must not pass."""
    copy_run(out, tmp_path / "run")
    record = json.loads((tmp_path / "run/.work/05-quantize/step.json").read_text(encoding="utf-8"))
    draft = Draft.from_json(record["draft"], (tmp_path / "run").resolve())
    assert draft.student is not None
    path = draft.student.graphs["image"]["int8"]
    model = onnx.load(str(path))
    rng = np.random.default_rng(0)
    for weights in [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1]:
        shuffled = rng.permutation(onnx.numpy_helper.to_array(weights))
        weights.CopyFrom(onnx.numpy_helper.from_array(shuffled, weights.name))
    path.unlink()  # it may be a link to the file that other tests read
    onnx.save(model, str(path))
    folder = tmp_path / "gate"
    folder.mkdir()
    with pytest.raises(
        GateFailed,
        match=r"refused on 353 validation images: (ov:cpu lost .* points of top-1 \(at most 1|engines disagree on ea)",
    ):
        Gate(restore=0, qat_epochs=0).run(dataclasses.replace(draft, folder=folder))


@pytest.mark.parametrize(
    ("step", "fields", "text"),
    [
        (Gate, {"max_drop": -1}, "must not be negative"),
        (Gate, {"golden": 0}, r"gate\.golden must lie in 2\.\.50"),
        (Pack, {"seconds": 0}, r"pack\.seconds must be above 0"),
    ],
)
def test_fields_are_checked(step: type, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        step(**fields)


def test_pack_wants_a_gate_before_it(out: Path, tmp_path: Path) -> None:
    record = json.loads((out / ".work/05-quantize/step.json").read_text(encoding="utf-8"))
    draft = Draft.from_json(record["draft"], out.resolve())
    with pytest.raises(RecipeError, match=r"\[pack\] publishes what \[gate\] let through; put a \[gate\] before it"):
        Pack().run(dataclasses.replace(draft, folder=tmp_path))


def test_the_report_command(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- results -->\nold\n<!-- /results -->\nb\n", encoding="utf-8")
    assert report_main([str(out), "--readme", str(readme)]) == 0
    text = readme.read_text(encoding="utf-8")
    assert "old" not in text
    assert text.startswith("a\n<!-- results -->\n|  | teacher fp32 |")
    assert text.endswith("<!-- /results -->\nb\n")
    capsys.readouterr()
    assert report_main([str(tmp_path)]) == 2
    assert "holds no finished run" in capsys.readouterr().err
    readme.write_text("nothing", encoding="utf-8")
    assert report_main([str(out), "--readme", str(readme)]) == 2
    assert "lacks the marks" in capsys.readouterr().err
