"""`python -m sdk`: what it prints, and one line with exit code 2 for whatever cannot be done."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import runtimes
from sdk import open_bundle
from sdk.__main__ import main
from tests.bundles import ANSWERS, BANK, CARD, colour_frame, damage, golden_with

ROOT = Path(__file__).parents[2]
HERE = [str(target) for target in runtimes.targets()]


@pytest.fixture(scope="module")
def blue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "blue.png"
    assert cv2.imwrite(str(path), cv2.cvtColor(colour_frame("blue", size=48), cv2.COLOR_RGB2BGR))
    return path


@pytest.fixture(scope="module")
def purple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A colour that is not in the bank."""
    path = tmp_path_factory.mktemp("images") / "purple.png"
    assert cv2.imwrite(str(path), cv2.cvtColor(colour_frame("purple", size=48), cv2.COLOR_RGB2BGR))
    return path


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sdk", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], list[str]]:
    """Run in this process: exit code, lines on stdout, lines on stderr."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


def test_classifies_from_the_command_line(colours: Path, blue: Path) -> None:
    done = run(colours, blue)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert re.fullmatch(r" ?\d+\.\d%  blue", lines[0])
    assert re.fullmatch(
        r" +image: \w+:\S+, (fp32|int8), computed in \S+ \(first that opened; golden error .*\)", lines[3]
    )


def test_own_labels_k_target_and_precision(colours: Path, blue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for on in HERE:
        code, out, err = said(
            capsys, colours, blue, "--labels", "a red wall, a blue thing", "--k", 1, "--on", on, "--precision", "fp32"
        )
        assert (code, err) == (0, [])
        assert re.fullmatch(r" ?\d+\.\d%  a blue thing   \(1 unknown tokens\)", out[0])
        assert [line.split(":")[0].strip() for line in out[1:]] == ["image", "text"]
        assert all(f" {on}, fp32, computed in f32 (asked for; " in line for line in out[1:])


def test_says_first_when_it_is_none_of_these(colours: Path, purple: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, colours, purple)
    assert (code, err) == (0, [])
    assert out[0] == "none of these (best cosine below 0.9)"
    assert re.fullmatch(r" *\d+\.\d%  red", out[1])
    code, out, err = said(capsys, colours, purple, "--labels", "red,purple", "--k", 1)
    assert re.fullmatch(r" *\d+\.\d%  purple", out[0])


def test_answers_with_groups(colours: Path, blue: Path, purple: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, colours, blue, "--groups")
    assert (code, err) == (0, [])
    assert [line.split()[-1] for line in out[:3]] == ["cold", "green", "warm"]
    assert said(capsys, colours, purple, "--groups")[1][:2] == [
        "none of these (best cosine below 0.9)",
        said(capsys, colours, purple, "--groups", "--k", 1)[1][1],
    ]


def test_searches_photos(colours: Path, blue: Path, purple: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "search", colours, "a purple wall", blue, purple)
    assert (code, err) == (0, [])
    assert re.fullmatch(rf" 0\.9\d\d  {purple}", out[0])
    assert re.fullmatch(rf"[ -]\d\.\d\d\d  {blue}", out[1])
    assert [line.split(":")[0].strip() for line in out[2:]] == ["image", "text"]
    code, out, err = said(capsys, "search", colours, "blue", blue, purple, "--k", 1, "--on", HERE[0])
    assert [line.split()[-1] for line in out[:1]] == [str(blue)]
    assert f"image: {HERE[0]}, " in out[1]


def test_prints_the_card_line_by_line(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "card", colours)
    assert (code, out, err) == (0, CARD.splitlines(), [])
    hostile = b"# A\r\n\x1b[2J\n\tcode\n"
    path = damage(colours, tmp_path / "b", {"card.md": hostile})
    assert said(capsys, "card", path) == (0, ["# A", "\\x1b[2J", "        code"], [])


def test_a_bundle_without_a_card(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = damage(colours, tmp_path / "b", change=lambda t: t.update(card=None))
    assert not [line for line in said(capsys, "inspect", path)[1] if line.startswith("card")]
    code, out, err = said(capsys, "card", path)
    assert (code, out) == (2, [])
    assert err == [f"error: {path} has no model card; ask its maker, or run: python -m sdk inspect BUNDLE"]


def test_a_bare_name_is_looked_up_by_every_command(
    colours: Path, blue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PUPIL_HOME", str(tmp_path))
    shutil.copytree(colours, tmp_path / "bundles" / "my-colours")
    assert said(capsys, "my-colours", blue, "--k", 1)[1][0].endswith("%  blue")
    assert said(capsys, "inspect", "my-colours")[1][0].startswith("colours   format 1")
    assert said(capsys, "card", "my-colours")[0] == 0
    assert said(capsys, "verify", "my-colours")[0] == 0
    assert said(capsys, "search", "my-colours", "blue", blue)[0] == 0
    assert said(capsys, "slim", "my-colours", "--for", HERE[0], "--out", tmp_path / "slim")[0] == 0
    for arguments in (["my-colors", blue], ["inspect", "my-colors"], ["verify", "my-colors"]):
        code, out, err = said(capsys, *arguments)
        assert (code, out, len(err)) == (2, [], 1)
        assert "error: there is no path and no bundle called 'my-colors'; looked in " in err[0]
    (line,) = said(capsys, "inspect", "./my-colours")[2]
    assert line.startswith("error: my-colours is not a bundle: a bundle is a folder that holds bundle.json")


def test_answers_questions(colours: Path, blue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "is it a red shiny wall or what is it?"
    code, out, err = said(capsys, colours, blue, "--ask", "is it blue?", "--ask", "what is it?", "--ask", long)
    assert (code, err) == (0, [])
    assert re.fullmatch(r" *\d+\.\d%  yes   is it blue\?", out[0])
    assert re.fullmatch(r" *\d+\.\d%  blue   what is it\?", out[1])
    assert re.fullmatch(r" *\d+\.\d%  no   is it a red .*\?   \(1 unknown tokens, 5 tokens cut\)", out[2])
    assert [line.split(":")[0].strip() for line in out[3:]] == ["image", "text", "fusion"]


def test_a_bundle_without_answers_says_so(plain: Path, blue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, plain, blue, "--ask", "is it red?")
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].endswith("was not made for the task 'ask'; it does: classify, embed_images, embed_texts, search")
    assert not [line for line in said(capsys, "inspect", plain)[1] if line.startswith("answers")]


def test_inspects(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "inspect", colours)
    assert (code, err) == (0, [])
    text = "\n".join(out)
    assert out[0].startswith("colours   format 1   0.0 MB   " + open_bundle(colours).hash[:16])
    for part in (
        "tasks     classify, embed_images, embed_texts, search, ask",
        f"card      card.md, {len(CARD.encode())} bytes; run: python -m sdk card BUNDLE",
        "groups    2: warm, cold",
        "unknown   none of these, where the best cosine is below 0.9",
        "licence   Apache-2.0; made from: ",
        "frames    16 x 16, area, crop none",
        "texts     6 tokens",
        f"labels    4: {', '.join(BANK)}",
        f"answers   {len(ANSWERS)}: yes, no, red, green, ",
        "quality   zero_shot.top1 student: 1 [0.9, 1] n=8",
        "made      made_by tests",
    ):
        assert part in text
    assert len([line for line in out if line.startswith("graph  ") and line.endswith("for ov, ort")]) == 6


def test_verifies(colours: Path) -> None:
    done = run("verify", colours)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()[1:]
    assert len(lines) == 2 + 6 * len(HERE)
    assert all(line.startswith("PASS  ") for line in lines)
    for target in HERE:
        assert len([line for line in lines if f" {target} " in line]) == 6


def test_verify_fails_when_an_answer_left_its_golden_output(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = -np.asarray(open_bundle(colours).golden["out/text/fp32/embedding"])
    path = damage(colours, tmp_path / "b", {"golden.npz": golden_with(colours, out__text__fp32__embedding=wrong)})
    code, out, err = said(capsys, "verify", path)
    assert (code, err) == (1, [])
    assert {line.split()[1] + " " + line.split()[2] for line in out if line.startswith("FAIL")} == {"text fp32"}
    assert len([line for line in out if line.startswith("FAIL")]) == len(HERE)


def test_verify_without_an_engine_is_no_pass(
    colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtimes, "targets", lambda: ())
    code, out, err = said(capsys, "verify", colours)
    assert code == 1
    assert [line.split()[1] for line in out[1:]] == ["frames", "tokens"]
    assert err == ["no engine on this machine opens this bundle; run: python -m runtimes"]


def test_slims(colours: Path, blue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "slim"
    code, lines, err = said(capsys, "slim", colours, "--for", HERE[0], "--no-text", "--precision", "int8", "--out", out)
    assert (code, err) == (0, [])
    size = sum(path.stat().st_size for path in out.iterdir())
    assert lines == [f"{out}: {size / 1e6:.2f} MB, {open_bundle(out).hash[:16]}"]
    assert said(capsys, "verify", out)[0] == 0
    code, lines, err = said(capsys, out, blue, "--k", 1)
    assert (code, err) == (0, [])
    assert lines[0].endswith("%  blue")
    code, lines, err = said(capsys, out, blue, "--labels", "purple,blue")
    assert (code, lines, len(err)) == (2, [], 1)
    assert err[0].endswith("has no text tower: it was slimmed with --no-text; use the maker's bundle")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: bundle, image; run: python -m sdk --help"),
        (["{bundle}"], "the following arguments are required: image; run: python -m sdk --help"),
        (["{bundle}", "{blue}", "--kk", "1"], "unrecognized arguments: --kk 1; run: python -m sdk --help"),
        (["{bundle}", "{blue}", "--k", "2", "--ask", "what?"], "argument --k: not allowed with argument --ask"),
        (["{bundle}", "{blue}", "--k", "many"], "argument --k: invalid int value: 'many'; run: python -m sdk --help"),
        (["{bundle}", "{blue}", "--k", "0"], "k must be a whole number from 1, but is 0"),
        (["{bundle}", "{blue}", "--precision", "int3"], "argument --precision: invalid choice: 'int3' (choose from"),
        (["{bundle}", "{blue}", "--labels", ""], "a label must be a text that is not empty, but '' came"),
        (["{bundle}", "{blue}", "--labels", "a,b,a"], "the label 'a' was given twice; give each label once"),
        (["{bundle}", "{blue}", "--ask", ""], "wanted a question that is a str and not empty, but '' came"),
        (["{bundle}", "{blue}", "--ask"], "argument --ask: expected one argument; run: python -m sdk --help"),
        (["{bundle}", "{blue}", "--ask", "a", "--labels", "b"], "argument --labels: not allowed with argument --ask"),
        (
            ["{bundle}", "{blue}", "--ask", "a", "--groups"],
            "argument --groups: not allowed with argument --ask: a quest",
        ),
        (["search", "{bundle}", "red"], "the following arguments are required: photo; run: python -m sdk --help"),
        (["search", "{bundle}", "red", "{blue}", "{tmp}/no.png"], "/no.png': wanted an image file, got a path that"),
        (["search", "{bundle}", "", "{blue}"], "a text is empty; write a word or a phrase"),
        (["search", "{bundle}", "red", "{blue}", "--k", "0"], "k must be a whole number from 1, but is 0"),
        (["card", "{tmp}"], "is not a bundle: a bundle is a folder that holds bundle.json"),
        (["{bundle}", "{blue}", "--on", "cpu"], "'cpu' is not a target; write runtime:device[.index], such as ov:cpu"),
        (["{bundle}", "{blue}", "--on", "ort:tpu"], "no target can run the image tower of"),
        (["{bundle}", "{tmp}/none.png"], "wanted an image file, got a path that does not exist; check it"),
        (["{bundle}", "{bundle}"], "wanted an image file, got a folder"),
        (["{bundle}", "{bundle}/labels.npy"], "wanted a JPEG, PNG, WebP or BMP image"),
        (["{tmp}", "{blue}"], "is not a bundle: a bundle is a folder that holds bundle.json"),
        (["{tmp}/" + "x" * 300, "{blue}"], "cannot be read: "),
        (["inspect"], "the following arguments are required: bundle; run: python -m sdk --help"),
        (["inspect", "{tmp}"], "is not a bundle"),
        (["verify", "{tmp}/none"], "is not a bundle"),
        (["slim", "{bundle}", "--out", "{tmp}/o"], "the following arguments are required: --for"),
        (["slim", "{bundle}", "--for", "ov:cpu", "--out", "{tmp}"], "exists; remove it or choose another folder"),
        (["slim", "{bundle}", "--for", "ov:cpu", "--out", "{blue}"], "exists; remove it or choose another folder"),
        (["slim", "{bundle}", "--for", "ov:cpu", "--out", "{blue}/o"], "blue.png/o could not be written: "),
        (
            ["slim", "{bundle}", "--for", "trt:cuda.0", "--out", "{tmp}/o"],
            "holds no image graph for 'trt'; it holds: ort, ov",
        ),
        (
            ["slim", "{bundle}", "--for", "ovv:cpu", "--out", "{tmp}/o"],
            "holds no image graph for 'ovv'; it holds: ort, ov",
        ),
        (["slim", "{bundle}", "--for", "ov:cpu", "--out", "{bundle}/o"], "/o lies inside the bundle "),
        (
            ["slim", "{bundle}", "--for", "openvino", "--out", "{tmp}/o"],
            "'openvino' is not a target; write runtime:dev",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    colours: Path,
    blue: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    code, out, err = said(capsys, *(each.format(bundle=colours, blue=blue, tmp=tmp_path) for each in arguments))
    assert code == 2
    assert out == []
    assert len(err) == 1
    assert err[0].startswith("error: ")
    assert message in err[0]
    assert not list(tmp_path.iterdir())


def test_a_damaged_bundle_is_one_line_of_a_real_process(colours: Path, blue: Path, tmp_path: Path) -> None:
    path = damage(colours, tmp_path / "b", {"image.fp32.onnx": b"garbage"})
    for arguments in ((path, blue), ("inspect", path), ("verify", path)):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"error: 'image\.fp32\.onnx' is not a readable ONNX file: [^\n]*\n", done.stderr)


def test_help_shows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for command in (
        "inspect",
        "card",
        "search",
        "verify",
        "slim",
        "--labels",
        "--groups",
        "--ask QUESTION [--ask",
        "--for",
        "--no-text",
    ):
        assert command in text


def test_labels_that_the_console_cannot_write(colours: Path, blue: Path, tmp_path: Path) -> None:
    """A Windows console, or a pipe, may know few letters."""
    path = damage(colours, tmp_path / "b", change=lambda t: t["labels"]["items"][2].update(label="blåhætte \ud83d"))
    for arguments in ((path, blue), ("inspect", path)):
        done = run(*arguments, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        assert (done.returncode, done.stderr) == (0, "")
        assert r"bl\xe5h\xe6tte \ud83d" in done.stdout


def test_what_a_bundle_says_cannot_move_the_cursor(
    colours: Path, blue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(table: dict[str, Any]) -> None:
        table["labels"]["items"][2]["label"] = "\x1b[2Jblue\n"
        table["name"] = "\x1b[31mcolours"
        table["provenance"] = {"a": "b\rc"}

    path = damage(colours, tmp_path / "b", change=change)
    for arguments in ((path, blue), ("inspect", path)):
        code, out, err = said(capsys, *arguments)
        assert (code, err) == (0, [])
        assert any(r"\x1b[2Jblue\n" in line for line in out)
        assert all(line.isprintable() for line in out)


def test_a_variant_that_was_refused_is_told(
    colours: Path, blue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = open_bundle(colours).golden
    wrong = {"out__image__fp32__embedding": -np.asarray(golden["out/image/fp32/embedding"])}
    path = damage(colours, tmp_path / "b", {"golden.npz": golden_with(colours, **wrong)})
    code, out, err = said(capsys, path, blue, "--on", HERE[0])
    assert (code, err) == (0, [])
    assert re.fullmatch(rf" +image: {HERE[0]}, int8, .*", out[3])
    assert re.fullmatch(rf" +image: not {HERE[0]}, fp32: answers leave the golden outputs by .*", out[4])


@pytest.mark.skipif(os.name == "nt", reason="a shell with pipes")
def test_a_closed_pipe_is_no_error(colours: Path) -> None:
    command = [sys.executable, "-u", "-m", "sdk", "inspect", str(colours)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
