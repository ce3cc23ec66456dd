"""The driver: what is done before is skipped, what changed runs again, and an interruption leaves nothing behind."""

from pathlib import Path

import pytest

from compress.draft import Draft
from compress.recipe import Recipe, load_recipe
from compress.steps import run_steps
from compress.steps.embed import Embed
from runtimes import RecipeError

TINY = """
name = "tiny"
[data]
name = "easy_vqa"
val_images = 16
[teach]
image = "timm_image"
image_options = { model = "lcnet_050" }
text_options = { layers = 1, vocab = 3000 }
size = 32
dim = 16
max_length = 12
epochs = 1
batch = 16
[embed]
views = 2
phrases = 40
held_out = 10
words = 50
[distill]
image = "timm_image"
image_options = { model = "lcnet_050" }
text_options = { layers = 1, vocab = 3000 }
epochs = 1
batch = 16
phrases = 8
"""


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """easy-VQA with 64 train and 16 validation images: real files, but few."""
    from compress.data import easy_vqa

    whole = easy_vqa._read_split

    def few(folder: Path) -> easy_vqa.Split:
        split = whole(folder)
        keep = easy_vqa.np.arange(len(split.images)) < 80
        return easy_vqa._subset(split, keep)

    monkeypatch.setattr(easy_vqa, "_read_split", few)


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    return load_recipe(file, overrides)


def ran(loaded: Recipe, out: Path, resume: bool = True) -> tuple[Draft, list[str]]:
    """The last draft, and the names of the steps that really ran."""
    steps: list[str] = []

    def note(name: str, seconds: float, before: bool) -> None:
        if not before:
            steps.append(name)

    return run_steps(loaded, out, resume, note), steps


def test_three_steps_then_resume_then_a_change(tmp_path: Path) -> None:
    out = tmp_path / "run"
    draft, steps = ran(recipe(tmp_path), out)
    assert steps == ["teach", "embed", "distill"]
    assert draft.teacher is not None
    assert draft.student is not None
    assert draft.student.dim == draft.teacher.dim == 16
    assert all(path.exists() for path in draft.paths())
    assert not list((out / ".work").glob("*.tmp"))
    assert {"teach.val_top1", "distill.val_top1", "distill.phrase_cosine"} <= set(draft.metrics)
    assert set(draft.seconds) == {"teach", "embed", "distill"}

    again, steps = ran(recipe(tmp_path), out)
    assert steps == []
    assert again == draft

    changed, steps = ran(recipe(tmp_path, "distill.contrast=0.5"), out)
    assert steps == ["distill"]
    assert changed.teacher == draft.teacher

    (out / ".work/02-embed/store/val.npy").parent.rename(out / "gone")
    assert ran(recipe(tmp_path, "distill.contrast=0.5"), out)[1] == ["embed", "distill"]
    assert ran(recipe(tmp_path, "seed=1"), out)[1] == ["teach", "embed", "distill"]


def test_a_bad_option_of_a_later_step_is_refused_before_the_first_one_runs(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="timm has no model 'lcnet_05'"):
        ran(recipe(tmp_path, "distill.image_options.model=lcnet_05"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_resume_everything_runs_and_gives_the_same(tmp_path: Path) -> None:
    first, _ = ran(recipe(tmp_path), tmp_path / "a")
    second, steps = ran(recipe(tmp_path), tmp_path / "a", resume=False)
    assert steps == ["teach", "embed", "distill"]
    assert first.metrics == second.metrics


def test_an_interrupted_step_leaves_only_a_tmp_folder_which_the_next_run_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def interrupted(self: Embed, draft: Draft) -> Draft:
        (draft.folder / "half").write_text("x")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Embed, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ran(recipe(tmp_path), out)
    assert (out / ".work/02-embed.tmp/half").exists()
    assert not (out / ".work/02-embed").exists()
    _, steps = ran(recipe(tmp_path), out)
    assert steps == ["embed", "distill"]
    assert not list((out / ".work").glob("*.tmp"))
