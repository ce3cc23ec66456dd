"""The command: one clear line and an exit code for every mistake, and nothing written."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from compress import distill
from compress.ablation import FILES
from compress.draft import Draft
from compress.recipe import Recipe, load_recipe
from compress.report import PUBLISHED
from compress.steps import OnStep, StepDone
from compress.steps.teach import Teach
from runtimes import GateFailed, PupilError, Unavailable

RECIPE = "[data]\nname = 'easy_vqa'\n[teach]\n[embed]\n[prune]\n[distill]\n[quantize]\n[gate]\n[pack]\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    assert distill.main([str(argument) for argument in arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    return shown.err


def test_an_unknown_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no recipe 'nothing'" in refused(capsys, "nothing", "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_folder_that_is_not_ours(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o"
    out.mkdir()
    (out / "thesis.doc").write_text("x")
    for more in ([], ["--resume"]):
        assert "was not made by this command; choose another --out" in refused(capsys, recipe, "--out", out, *more)
    assert [path.name for path in out.iterdir()] == ["thesis.doc"]
    assert "was not made by this command" in refused(capsys, recipe, "--out", out / "thesis.doc")


def test_an_earlier_run_needs_resume(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    distill.claim(tmp_path / "o", load_recipe(recipe))
    assert "add --resume" in refused(capsys, recipe, "--out", tmp_path / "o")


def test_steps_from_what_is_no_run(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, recipe, "--out", tmp_path / "o", "--steps-from", tmp_path)
    assert f"--steps-from {tmp_path} holds no run of compress.distill; give the --out of an earlier one" in said
    assert not (tmp_path / "o").exists()


def test_no_space(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, recipe, "--out", tmp_path / "a" / "b", "--set", "disk_mb=999999999")
    assert "needs 999999999 MB of disk" in said
    assert not (tmp_path / "a").exists()


def test_a_recipe_without_pack_is_refused_before_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = tmp_path / "short.toml"
    short.write_text("[data]\nname = 'easy_vqa'\n[teach]\n")
    said = refused(capsys, short, "--out", tmp_path / "o")
    assert "the recipe short ends in [teach]; its last step must be [pack]" in said
    short.write_text("[data]\nname = 'easy_vqa'\n")
    assert "the recipe short has no steps; its last step must be [pack]" in refused(capsys, short)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--ou", "x", "--frob"), "error: unrecognized arguments: --frob; run: python -m compress.distill --help"),
        (("--out",), "error: argument --out: expected one argument; run: python -m compress.distill --help"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_line(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *arguments).strip() == says


def test_what_a_step_checks_leaves_no_folder_behind(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (recipe, "--out", tmp_path / "o", "--set", "prune.image=timm_image", "--set")
    said = refused(capsys, *asked, "prune.image_options.model=lcnet_05")
    assert "timm has no model 'lcnet_05'" in said
    assert not (tmp_path / "o").exists()


def test_a_folder_that_cannot_be_made(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "check_steps", lambda _: None)
    (tmp_path / "file").write_text("x")
    said = refused(capsys, recipe, "--out", tmp_path / "file" / "o")
    assert f"cannot write into --out {tmp_path / 'file' / 'o'}: Not a directory; choose another --out" in said


def test_one_process_at_a_time_works_in_a_folder(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "check_steps", lambda _: None)
    out = tmp_path / "o"
    holds = "from pathlib import Path; from compress import distill; from compress.lock import held\n"
    holds += f"out = Path({str(out)!r})\nwith held(out / distill.MARKER):\n"
    holds += f"    distill.claim(out, distill.load_recipe({str(recipe)!r})); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        said = refused(capsys, recipe, "--out", out, "--resume")
        assert f"--out {out} is in use by the process {other.pid}; wait until it ends, or choose another --out" in said
        assert json.loads((out / distill.MARKER).read_text())["pid"] == other.pid
        other.kill()
    monkeypatch.setattr(distill, "run_steps", raising(GateFailed("refused")))
    assert "gate: refused" in refused(capsys, recipe, "--out", out, "--resume", code=1)
    assert json.loads((out / distill.MARKER).read_text())["pid"] == os.getpid()


@pytest.fixture
def runs(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[..., None]], list[object]]:
    """Replaces the steps by a function; returns the arguments of the command."""

    def replace(steps: Callable[..., None]) -> list[object]:
        monkeypatch.setattr(distill, "check_steps", lambda _: None)
        monkeypatch.setattr(distill, "run_steps", steps)
        return [recipe, "--out", tmp_path / "o"]

    return replace


def raising(error: BaseException) -> Callable[..., None]:
    def fails(*_: object) -> None:
        raise error

    return fails


Runs = Callable[[Callable[..., None]], list[object]]


@pytest.mark.parametrize(
    ("error", "code"), [(GateFailed("too much\nlost"), 1), (Unavailable("no engine"), 2), (PupilError("x"), 2)]
)
def test_exit_codes(runs: Runs, capsys: pytest.CaptureFixture[str], error: PupilError, code: int) -> None:
    assert str(error).replace("\n", " ") in refused(capsys, *runs(raising(error)), code=code)


def test_a_refused_run_still_shows_what_was_ablated(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(recipe: Recipe, out: Path, resume: bool, on_step: OnStep, _: object) -> None:
        draft = Draft(out, out, 0, recipe.dataset, seconds={"embed": 3.0})
        on_step(StepDone("embed", out / ".work/02-embed", "key", False, draft, draft))
        raise GateFailed("too much lost")

    arguments = runs(refuses)
    (tmp_path / "o/.work").mkdir(parents=True)
    (tmp_path / "o/.pupil.json").write_text("{}")
    assert distill.main([*map(str, arguments), "--resume", "--ablate"]) == 1
    shown = capsys.readouterr()
    assert "mine: after each step" in shown.out
    assert "embed" in shown.out
    assert shown.err.splitlines() == ["embed: done, 3 s", "gate: too much lost"]
    assert all((tmp_path / "o" / name).exists() for name in FILES)


def test_an_interruption_says_how_to_go_on(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the same command with --resume goes on from the last checkpoint" in refused(
        capsys, *runs(raising(KeyboardInterrupt())), code=130
    )


def test_a_full_disk_is_one_line(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, *runs(raising(OSError(errno.ENOSPC, "No space left on device", "x.npy"))))
    assert "No space left on device: 'x.npy'; make room, then the same command with --resume goes on" in said
    said = refused(capsys, *runs(raising(PermissionError(errno.EACCES, "Permission denied", "x.npy"))), "--resume")
    assert "Permission denied: 'x.npy'; see to that, then the same command with --resume goes on" in said


def test_paths_stay_on_their_line_when_piped(
    runs: Runs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [Path("/a", *["folder"] * 20, name) for name in PUBLISHED]
    monkeypatch.setattr(distill, "write_report", lambda *_: ("table", long))
    assert distill.main([str(argument) for argument in runs(lambda *_: None)]) == 0
    assert capsys.readouterr().out.splitlines() == ["table", *map(str, long)]


@pytest.mark.parametrize("package", ["rich", "timm", "torch"])
def test_a_missing_package_is_one_line_and_leaves_nothing(recipe: Path, tmp_path: Path, package: str) -> None:
    code = f"import sys\nsys.modules[{package!r}] = None\nfrom compress import distill\nsys.exit(distill.main())"
    command = [sys.executable, "-c", code, str(recipe), "--out", str(tmp_path / "o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: the maker's packages are not all here (")
    assert package in done.stderr
    assert done.stderr.endswith("; run: pip install 'edge-pupil[compress,openvino,onnx]'\n")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_our_own_mistakes_keep_their_traceback(runs: Runs) -> None:
    arguments = runs(raising(ImportError("cannot import name 'x'", name="compress.steps")))
    with pytest.raises(ImportError, match="cannot import name 'x'"):
        distill.main([str(argument) for argument in arguments])


def test_what_was_published_goes_before_the_first_step_that_runs(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    distill.claim(out, load_recipe(recipe))
    for name in (*PUBLISHED, *FILES):
        (out / name).write_text("old") if "." in name else (out / name).mkdir()
    for half in (".student-8x2z/graph.onnx", ".teacher-8x2z-old/bundle.json", "eval.tmp/eval.json"):
        (out / half).parent.mkdir()
        (out / half).write_text("half")
    (out / "mine.txt").write_text("kept")
    monkeypatch.setattr(distill, "check_steps", lambda _: None)

    def finished(*_: object) -> None:
        raise PupilError("all steps were done before")

    with monkeypatch.context() as patch:
        patch.setattr(distill, "run_steps", finished)
        refused(capsys, recipe, "--out", out, "--resume")
    assert all((out / name).exists() for name in PUBLISHED)

    def fails(self: Teach, draft: Draft) -> Draft:
        assert not any((out / name).exists() for name in (*PUBLISHED, *FILES)), "before it works"
        raise GateFailed("refused")

    monkeypatch.setattr(Teach, "run", fails)
    assert "gate: refused" in refused(capsys, recipe, "--out", out, "--resume", code=1)
    assert {path.name for path in out.iterdir()} == {".pupil.json", ".work", "mine.txt"}
