"""`python benchmarks/run.py`, as a user runs it, on bundles that really recognise."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import command as benchmark
from benchmarks.cells import Effort
from benchmarks.command import main
from benchmarks.figures import figures
from benchmarks.picture import draw
from benchmarks.report import markdown, write_report
from benchmarks.require import NAMES, judge, parse_bar
from benchmarks.samples import Samples
from sdk.bundle import open_bundle
from tests.bundles import build_colour_bundle, damage, without_text

ROOT = Path(__file__).parents[2]
FILES = {"report.json", "report.md", "samples.jsonl"}
# In CI matplotlib must be here.
DRAWN = os.environ.get("CI") == "true" or importlib.util.find_spec("matplotlib") is not None
FILES |= {"accuracy_latency.png"} if DRAWN else set()
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "80"}


def command(run: Path, *arguments: str) -> list[str]:
    three = (f"--{name}={run / name}" for name in ("teacher", "student", "eval"))
    return [sys.executable, str(ROOT / "benchmarks" / "run.py"), *three, *arguments]


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quicker than --quick: as few samples as a figure can be made of."""
    monkeypatch.setattr(benchmark, "QUICK", Effort(seconds=0.0, runs=6, images=12, children=1))


@pytest.fixture(scope="module")
def finished(colour_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick run of every target, from a folder elsewhere, with nothing on the path."""
    folder = tmp_path_factory.mktemp("elsewhere")
    bars = ("student.zero_shot.drop <= 1.0", "student.answers.accuracy >= 99", "student.speedup.f32@ort:cpu > 0")
    done = subprocess.run(
        command(colour_run, "--quick", "--out", "report", *(f"--require={bar}" for bar in bars)),
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def report(finished: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((finished / "report" / "report.json").read_text(encoding="utf-8"))
    return found


def test_writes_four_files_and_says_where(finished: Path) -> None:
    assert {path.name for path in (finished / "report").iterdir()} == FILES
    assert {path.name for path in finished.iterdir()} == {"report", "printed.txt"}
    printed = (finished / "printed.txt").read_text(encoding="utf-8")
    assert all(str(Path("report") / name) in printed for name in FILES)
    assert "student.zero_shot.drop <= 1.0: met by 1, it is 0 on" in printed
    assert "student int8" in printed
    assert printed.startswith("A quick look: 24 of 24 images")
    assert "none of these, AUROC" in printed
    assert max(map(len, printed.split("report/", maxsplit=1)[0].splitlines()[:-1])) <= 80
    if DRAWN:
        assert (finished / "report" / "accuracy_latency.png").read_bytes().startswith(b"\x89PNG")


def test_measures_every_variant_on_every_target(report: dict[str, Any]) -> None:
    assert report["targets"] == ["ort:cpu", "ov:cpu"]
    cells = {(r["model"], r["variant"], r["target"]) for r in report["cells"]}
    assert cells == {(m, v, t) for m in ("teacher", "student") for v in ("fp32", "int8") for t in report["targets"]}
    assert [(r["model"], r["variant"]) for r in report["cells"] if r["main"]] == 2 * [
        ("teacher", "fp32"),
        ("student", "int8"),
    ]
    assert report["not_opened"] == []
    for row in report["cells"]:
        assert row["compute"].startswith("int8+" if row["variant"] == "int8" else ("f32", "bf16", "f16"))


def test_every_cell_holds_every_figure_with_its_interval(report: dict[str, Any]) -> None:
    for row in report["cells"]:
        assert row["accuracy"]["top1"]["value"] == row["accuracy"]["answers"]["value"] == 1
        assert row["accuracy"]["map"]["value"] == 1
        assert row["accuracy"]["shop"]["search.map"]["value"] == 1
        assert row["stages_ms"].keys() == {"decode", "resize", "image", "text", "fuse"}
        assert row["end_to_end_ms"].keys() == {"classify", "ask"}
        assert row["fresh"].keys() == {"load_ms", "first_call_ms", "before_mb", "after_mb", "peak_mb"}
        timed = [*row["single_stream_ms"].values(), *row["stages_ms"].values(), *row["end_to_end_ms"].values()]
        for figure in [*timed, *row["fresh"].values(), *row["offline"]["images_per_second"].values()]:
            assert 0 < figure["low"] <= figure["value"] <= figure["high"]
        p50, p90, p99 = (row["single_stream_ms"][p]["value"] for p in ("p50", "p90", "p99"))
        assert p50 <= p90 <= p99
        assert 30 < row["fresh"]["before_mb"]["value"] < row["fresh"]["peak_mb"]["value"] < 2000
        assert row["bytes"] > 10_000
        if row["model"] == "student":
            assert row["accuracy"]["top1_drop"]["value"] == row["accuracy"]["answers_drop"]["value"] == 0
            assert row["accuracy"]["against"].startswith(f"teacher fp32 {row['target']} f32")


def test_speedups_and_our_layer_are_paired(report: dict[str, Any]) -> None:
    assert {(p["target"], p["against"]) for p in report["speedups"]} == {
        (target, against) for target in report["targets"] for against in ("f32", "default", "own_f32")
    }
    assert all(pair["fast"]["variant"] == "int8" and pair["speedup"]["n"] >= 30 for pair in report["speedups"])
    assert [cost["target"] for cost in report["layer"]] == report["targets"]
    for cost in report["layer"]:
        assert 0 < cost["embed_images_us"]["value"] < 2000  # microseconds, not milliseconds or seconds
        assert {"value", "low", "high", "n"} == cost["labels_us"].keys()
    assert report["baselines"]["question_only"]["value"] == pytest.approx(
        0.5
    )  # a sixth of the colours, and "no" for five sixths


def test_raw_samples_carry_units_machine_and_target(finished: Path, report: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in (finished / "report" / "samples.jsonl").read_text().splitlines()]
    head, rest = lines[0], lines[1:]
    assert head["facts"] == report["machine"]
    assert "openvino" in head["versions"]
    assert {line["machine"] for line in lines} == {report["machine_key"]}
    for line in rest:
        assert line["unit"] in {"ms", "us", "MB", "images/s", "right"}
        assert line["target"] in report["targets"]
        assert line["compute"] and line["samples"]
    by_cell = {(line["model"], line["variant"], line["target"], line["compute"], line["metric"]) for line in rest}
    for row in report["cells"]:
        assert (row["model"], row["variant"], row["target"], row["compute"], "single_stream.image_path") in by_cell
    # The report is a view of these samples.
    row = report["cells"][0]
    samples = next(line["samples"] for line in rest if line["metric"] == "single_stream.image_path")
    assert min(samples) <= row["single_stream_ms"]["p50"]["value"] <= max(samples)
    assert len(samples) == row["single_stream_ms"]["p50"]["n"]


def test_report_md_starts_with_what_decides(finished: Path) -> None:
    text = (finished / "report" / "report.md").read_text(encoding="utf-8").replace("(no picture:", "![accuracy")
    assert re.search(
        r"On \*\*ort:cpu\*\* the student loses 0\.00 \[.*\] points of top-1 and .* times as fast\*\* \(", text
    )
    assert text.index("A quick look: 24 of 24 images") < text.index("| target | model |") < text.index("![accuracy")
    assert text.index("![accuracy") < text.index("## Coarse classes, product search") < text.index("## How much faster")
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")


def test_every_name_has_a_figure(report: dict[str, Any]) -> None:
    for name, by_target in figures(report).items():
        if name != "student.speedup.eager":  # against a target that is measured only when it is asked for
            assert by_target.keys() == set(report["targets"]), name
    assert set(figures(report)) == set(NAMES)


@pytest.mark.usefixtures("brief")
def test_a_bar_that_is_missed_ends_with_1_and_says_by_how_much(
    colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(colour_run, "--quick", "--on", "ort:cpu", "--out", str(tmp_path / "report"))[2:]
    assert main([*arguments, "--require", "student.zero_shot.top1 >= 100.5", "--require", "student.map > 0.5"]) == 1
    said = capsys.readouterr()
    assert "student.zero_shot.top1 >= 100.5: missed by 0.5, it is 100 on ort:cpu" in said.err
    assert "student.map > 0.5: met by 0.5" in said.out
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [each["met"] for each in written["required"]] == [False, True]


@pytest.mark.usefixtures("brief")
def test_a_teacher_as_torch_programs(colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from tests.programs import write_programs

    write_programs(tmp_path / "teacher.pt2")
    arguments = command(colour_run, "--quick", "--on", "pt:cpu", "--out", str(tmp_path / "report"))[2:]
    assert main(arguments) == 2  # not beside this teacher
    assert "pt:cpu was asked for and does not open: teacher: there is no program" in capsys.readouterr().err
    assert main([*arguments, "--program", str(tmp_path / "teacher.pt2")]) == 0
    (row,) = json.loads((tmp_path / "report" / "report.json").read_text())["cells"]
    assert (row["model"], row["variant"], row["compute"]) == ("teacher", "pt2", "f32")
    assert row["accuracy"]["top1"]["value"] == row["accuracy"]["answers"]["value"] == 1
    assert row["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*.pt2"))
    (tmp_path / "teacher.pt2").write_bytes((tmp_path / "teacher.text.pt2").read_bytes())
    assert main([*arguments, "--program", str(tmp_path / "teacher.pt2")]) == 2
    assert "it is the program of another model" in capsys.readouterr().err


@pytest.mark.usefixtures("brief")
def test_a_student_is_timed_against_its_teacher_in_pytorch(
    colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    from tests.programs import write_programs

    write_programs(tmp_path / "teacher.pt2")
    bars = ("student.speedup.eager@ort:cpu > 0", "student.class_lost < 4")
    arguments = command(colour_run, "--quick", "--on", "ort:cpu", "pt:cpu", "--out", str(tmp_path / "report"))[2:]
    arguments += ["--program", str(tmp_path / "teacher.pt2"), *(f"--require={bar}" for bar in bars)]
    assert main(arguments) == 0, capsys.readouterr().err
    assert "student.class_lost < 4: met by 4, it is 0 on ort:cpu" in capsys.readouterr().out
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    (row,) = (each for each in report["speedups"] if each["against"] == "eager")
    assert (row["target"], row["slow"]) == ("ort:cpu", {"model": "teacher", "variant": "pt2", "compute": "f32"})
    assert (row["fast"]["model"], row["fast"]["variant"]) == ("student", "int8")
    assert "| teacher in PyTorch, operator by operator (f32) |" in (tmp_path / "report" / "report.md").read_text()


def test_labels_and_answers_are_lost_where_the_student_is_worse(report: dict[str, Any]) -> None:
    """Not from this run, in which nothing is lost: the worst target is what a bar without one is held against."""
    worse = json.loads(json.dumps(report))
    next(r for r in worse["cells"] if r["main"] and r["model"] == "student")["accuracy"]["top1_drop"]["value"] = 2.5
    outcome = judge(parse_bar("student.zero_shot.drop <= 1.0"), figures(worse))
    assert not outcome.met
    assert outcome.text == "student.zero_shot.drop <= 1.0: missed by 1.5, it is 2.5 on ort:cpu"
    assert judge(parse_bar("student.zero_shot.drop@ov:cpu <= 1.0"), figures(worse)).met


# Bad input: one line, exit code 2, before anything is measured.


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"error: .*\n", said.err)
    return said.err


def test_bad_arguments(colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = command(colour_run)[2:]
    assert "give --eval; run: python benchmarks/run.py --help" in refused(capsys, *good[:2])
    assert "unrecognized arguments: --fast" in refused(capsys, *good, "--fast")
    assert "is not a bundle" in refused(capsys, *good, "--teacher", str(tmp_path))
    assert "is not a bundle" in refused(capsys, *good, "--student", str(tmp_path / "none"))
    assert "is not an evaluation folder: eval.json" in refused(capsys, *good, "--eval", str(tmp_path))
    said = refused(capsys, *good, "--on", "ov:tpu")
    assert "ov:tpu was asked for and does not open: teacher" in said
    assert "no device 'tpu'" in said
    assert "holds no graph for 'nope'" in refused(capsys, *good, "--on", "nope:cpu")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    said = refused(capsys, *good, "--out", str(tmp_path / "mine"))
    assert "exists and is no report of this command; it is left alone" in said
    assert not (colour_run / "benchmark").exists()


def test_a_place_for_the_report_is_refused_before_measuring(
    colour_run: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(out: Path) -> str:
        return refused(capsys, *command(colour_run)[2:], "--out", str(out))

    assert "lies inside the bundle" in said(colour_run / "student" / "deep" / "report")
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written" in said(tmp_path / "file" / "report")
    assert "cannot be written" in said(tmp_path / "new" / ("long" * 100))
    shutil.copytree(finished / "report", tmp_path / "report")
    (tmp_path / "report" / "notes.txt").write_text("mine")
    assert "holds 'notes.txt' beside the report; move it away" in said(tmp_path / "report")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "report"}
    if sys.platform != "win32":
        (tmp_path / "link").symlink_to(colour_run / "student")
        assert "lies inside the bundle" in said(tmp_path / "link" / "report")


def test_a_report_is_replaced_and_what_came_meanwhile_stays(report: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "report"
    write_report(out, dict(report), Samples("m", {}))
    (out / "notes.txt").write_text("mine")
    (out / "report.md").write_text("old")
    write_report(out, dict(report), Samples("m", {}))
    assert {path.name for path in out.iterdir()} == {*FILES, "notes.txt"}
    assert (out / "report.md").read_text(encoding="utf-8") != "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_what_a_report_says_of_odd_names_and_missing_teachers(report: dict[str, Any], tmp_path: Path) -> None:
    odd = json.loads(json.dumps(report))
    odd["student"]["name"] = "costs $^$"  # to matplotlib a formula, and a wrong one
    odd["cells"] = [row for row in odd["cells"] if (row["model"], row["target"]) != ("teacher", "ov:cpu")]
    if DRAWN:
        assert draw(odd, tmp_path / "a.png") is None
    text = markdown(odd)
    assert "On **ov:cpu** no teacher was measured, so what the student lost there is not known" in text
    single = odd["cells"][0]["single_stream_ms"]
    single["p99"]["n"] = 367
    assert f"| {single['p99']['value']:.3f} |" in markdown(odd)
    single["p99"]["n"] = 368
    assert f"| {single['p99']['value']:.3f} [" in markdown(odd)


def test_an_interrupt_after_the_report_says_that_it_is_there(
    colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(report: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "QUICK", Effort(seconds=0.0, runs=6, images=12, children=1))
    monkeypatch.setattr(benchmark, "show", stopped)
    out = tmp_path.resolve() / "report"
    assert main([*command(colour_run, "--quick", "--on", "ORT:cpu")[2:], "--out", str(out)]) == 130
    assert capsys.readouterr().err.rstrip().endswith(f"interrupted; the report is in {out}")
    assert (out / "report.json").exists()


def test_a_clone_that_is_not_installed_runs_its_own_code(tmp_path: Path) -> None:
    for package in ("runtimes", "sdk", "benchmarks"):
        shutil.copytree(ROOT / package, tmp_path / "clone" / package)
    program = "import runpy, sys; sys.argv[1:] = ['--list-names']\n"
    program += f"try: runpy.run_path({str(tmp_path / 'clone' / 'benchmarks' / 'run.py')!r}, run_name='__main__')\n"
    program += "except SystemExit: import runtimes, sdk, benchmarks; print(runtimes.__file__, sdk.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].split() == [
        str(tmp_path / "clone" / package / "__init__.py") for package in ("runtimes", "sdk")
    ]


@pytest.mark.parametrize(
    ("bar", "message"),
    [
        ("student.speed <= 1", "there is no figure 'student.speed'; there are: student.zero_shot.top1, "),
        ("nonsense <= 1", "there is no figure 'nonsense'; there are: student.zero_shot.top1, "),
        ("student.map = 1", "cannot be read; write NAME OP NUMBER"),
        ("student.map <= nan", "'nan' is no number"),
        ("student.map <= one", "'one' is no number"),
        ("student.map@trt:cuda <= 1", "trt:cuda is not measured; measured are: ort:cpu"),
        ("student.speedup.eager >= 1", "the teacher is not measured on pt:cpu; add --on pt:cpu"),
    ],
)
def test_bad_requirements(colour_run: Path, capsys: pytest.CaptureFixture[str], bar: str, message: str) -> None:
    arguments = command(colour_run, "--quick", "--on", "ort:cpu", "--require", bar)[2:]
    assert message in refused(capsys, *arguments)
    assert not (colour_run / "benchmark").exists()


def test_a_bar_on_answers_where_none_are_asked(
    colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(colour_run / "eval", tmp_path / "eval")
    (tmp_path / "eval" / "questions.jsonl").unlink()
    arguments = command(colour_run, "--require", "student.answers.drop < 1")[2:]
    assert "cannot be measured: colours asks no questions" in refused(
        capsys, *arguments, "--eval", str(tmp_path / "eval")
    )
    silent = build_colour_bundle(tmp_path / "silent", asks=False).path
    for name in ("student.answers.drop", "teacher.answers.accuracy"):
        arguments = command(colour_run, "--teacher", str(silent), "--require", f"{name} < 1")[2:]
        assert f"cannot be measured: {silent} answers none" in refused(capsys, *arguments)


def test_missing_images_are_counted_and_the_first_named(
    colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(colour_run / "eval", tmp_path / "eval")
    for index in (3, 5):
        (tmp_path / "eval" / "images" / f"{index}.png").unlink()
    said = refused(capsys, *command(colour_run)[2:], "--eval", str(tmp_path / "eval"))
    assert "lacks 2 of its 24 images, the first is 'images/3.png'" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["provenance"].update(data="other 1"), "its data are 'other 1', the student's 'colours 1'"),
        (
            lambda t: t["labels"]["items"][0].update(label="crimson"),
            "its labels are 4, number 1 'crimson', the student's 4, number 1 'red'",
        ),
        (
            lambda t: t["fusion"]["answers"].__setitem__(8, "lilac"),
            "its answers are 9, number 9 'lilac', the student's 9, number 9 'purple'",
        ),
        (
            lambda t: t["labels"]["items"].pop(),
            "its labels are 3, number 4 missing, the student's 4, number 4 'yellow'",
        ),
    ],
)
def test_a_teacher_of_another_recipe(
    colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, message: str
) -> None:
    student = damage(colour_run / "student", tmp_path / "a", change=lambda t: t["provenance"].update(data="colours 1"))
    teacher = damage(colour_run / "teacher", tmp_path / "b", change=change)
    said = refused(capsys, *command(colour_run)[2:], "--teacher", str(teacher), "--student", str(student))
    assert "is the teacher of another recipe than" in said
    assert message in said


def test_labels_that_cannot_be_made(colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = damage(colour_run / "student", tmp_path / "student", change=without_text)
    said = refused(capsys, *command(colour_run)[2:], "--student", str(student))
    assert "has no text tower, which retrieval and the labels of colours need; 'white' and 1 more are not in" in said
    open_bundle(student)  # nothing else is wrong with it
    shutil.copytree(colour_run / "eval", tmp_path / "eval")
    path = tmp_path / "eval" / "images.jsonl"
    path.write_text(re.sub(r'"label": "\w+"', '"label": null', path.read_text()))
    said = refused(capsys, *command(colour_run)[2:], "--eval", str(tmp_path / "eval"))
    assert "knows the label of no image" in said


def test_the_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-names"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(NAMES)


def test_a_closed_pipe_is_no_traceback() -> None:
    program = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "--list-names"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=300) == 141


@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
def test_an_interrupted_run_leaves_nothing(colour_run: Path, tmp_path: Path) -> None:
    # A background job of a shell ignores Ctrl-C, and so does all that it starts, unless someone listens.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    out.mkdir()
    process = subprocess.Popen(
        command(colour_run, "--out", str(out / "report")),
        env={**ENVIRONMENT, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while not list(scratch.glob("pupil-bench-*/student-int8-*")) and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches the child of a cell as well
    printed, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert said.rstrip().endswith("interrupted; nothing was written")
    assert printed == ""
    assert not list(out.iterdir())
    assert not list(scratch.glob("pupil-bench-*"))
