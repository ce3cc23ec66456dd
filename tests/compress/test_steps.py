"""The driver: what is done before is skipped, what changed runs again, and an interruption leaves nothing behind."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from compress import installed
from compress.augment import Augment
from compress.data import easy_vqa
from compress.distilling import Texts
from compress.draft import Draft
from compress.models.text import minilm
from compress.recipe import Recipe
from compress.steps import StepDone, check_steps, run_steps
from compress.steps.embed import HELD_OUT_WORDS, Embed, possible_phrases
from compress.steps.pack import Pack
from compress.steps_from import take_steps
from compress.store import Header, Store
from compress.views import view_seed
from runtimes import RecipeError
from tests.tiny import few_images, tiny_recipe


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)


def ran(loaded: Recipe, out: Path, resume: bool = True) -> tuple[Draft, list[str]]:
    """The last draft, and the names of the steps that really ran."""
    steps: list[str] = []

    def note(done: StepDone) -> None:
        if not done.skipped:
            steps.append(done.name)

    return run_steps(loaded, out, resume, note), steps


def test_four_steps_then_resume_then_a_change(tmp_path: Path) -> None:
    out = tmp_path / "run"
    draft, steps = ran(tiny_recipe(tmp_path), out)
    assert steps == ["teach", "embed", "prune", "distill"]
    assert draft.teacher is not None
    assert draft.student is not None
    assert draft.student.dim == draft.teacher.dim == 16
    # The student's bundle turns cosines into probabilities as its teacher's does.
    assert draft.teacher.logit_scale != pytest.approx(1 / 0.07, rel=1e-6), "trained"
    assert draft.student.logit_scale == pytest.approx(draft.teacher.logit_scale, rel=1e-6)
    assert all(path.exists() for path in draft.paths())
    assert not list((out / ".work").glob("*.tmp"))
    assert {"teach.val_top1", "distill.val_top1", "distill.phrase_cosine"} <= set(draft.metrics)
    assert set(draft.seconds) == {"teach", "embed", "prune", "distill"}
    assert set(draft.pace) == {"teach: train", "teach: answers", "distill: train"}
    assert all(pace.seconds > 0 and pace.batch == 16 and pace.device == "cpu" for pace in draft.pace.values())

    again, steps = ran(tiny_recipe(tmp_path), out)
    assert steps == []
    assert again == draft

    changed, steps = ran(tiny_recipe(tmp_path, "distill.contrast=0.5", "distill.train_size=40"), out)
    assert steps == ["distill"]
    assert (draft.train_size, changed.train_size) == (0, 40), "training with rounding must see the same"
    assert changed.teacher == draft.teacher

    # A second student of the same teacher, in a folder of its own.
    assert changed.teacher is not None
    other = tmp_path / "other"
    other.mkdir()
    another = tiny_recipe(tmp_path, "prune.text_layers=2")
    take_steps(out, other, another)
    second, steps = ran(another, other)
    assert steps == ["prune", "distill"]
    assert second.teacher is not None
    assert second.teacher.image.weights == other.resolve() / ".work/01-teach/teacher/image.safetensors"
    assert second.teacher.image.weights.read_bytes() == changed.teacher.image.weights.read_bytes()
    assert all(path.exists() for path in changed.paths())

    (out / ".work/02-embed/store/val.npy").parent.rename(out / "gone")
    assert ran(tiny_recipe(tmp_path, "distill.contrast=0.5"), out)[1] == ["embed", "prune", "distill"]
    assert ran(tiny_recipe(tmp_path, "seed=1"), out)[1] == ["teach", "embed", "prune", "distill"]

    damaged = out / ".work/01-teach/teacher/tokenizer.json"
    damaged.write_bytes(damaged.read_bytes() + b" ")
    assert ran(tiny_recipe(tmp_path, "seed=1"), out)[1] == ["teach", "embed", "prune", "distill"]


def test_other_code_makes_a_step_run_again_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, said = tmp_path / "run", []
    short = dataclasses.replace(tiny_recipe(tmp_path), steps=(Note(),))

    def run(again: Recipe = short) -> None:
        said.clear()
        run_steps(again, out, True, on_start=lambda *told: said.append(told))

    run()
    assert said == [("test_steps", "")]
    run()
    assert said == []
    run(dataclasses.replace(short, seed=9))
    assert said == [("test_steps", "")], "another seed is what was asked for: no word about code"
    monkeypatch.setattr(installed, "environment", lambda: "other")
    run()
    assert said == [("test_steps", "made by other code or versions, again")]
    (out / ".work/01-test_steps/step.json").write_text("[]")
    run()
    assert said == [("test_steps", "")], "what cannot be read says nothing of its maker"


def test_a_step_that_writes_the_recipes_name_down_runs_again_for_another(tmp_path: Path) -> None:
    short = dataclasses.replace(tiny_recipe(tmp_path), steps=(Note(), Named()))
    assert ran(short, tmp_path / "run")[0].recipe == "tiny"
    draft, steps = ran(dataclasses.replace(short, name="kiosk"), tmp_path / "run")
    assert (draft.recipe, len(steps)) == ("kiosk", 1)
    assert ran(dataclasses.replace(short, name="kiosk"), tmp_path / "run")[1] == []
    assert Pack.named, "it names the bundles"


def test_the_key_follows_sources_versions_and_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sdk/a.py", "compress/b.toml", "compress/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    first = installed.sources_hash(tmp_path)
    (tmp_path / "compress/notes.md").write_text("y")
    assert installed.sources_hash(tmp_path) == first
    for folder in ("recipes", "studies"):  # what those set is in the keys of steps
        (tmp_path / "compress" / folder).mkdir()
        (tmp_path / "compress" / folder / "b.toml").write_text("x")
        assert installed.sources_hash(tmp_path) == first
    (tmp_path / "sdk/a.py").rename(tmp_path / "sdk/c.py")
    second = installed.sources_hash(tmp_path)
    (tmp_path / "compress/b.toml").write_text("y")
    assert len({first, second, installed.sources_hash(tmp_path)}) == 3

    with pytest.raises(OSError, match="nothing"):
        installed.made_by(("compress/nothing.py",), ())

    def fresh() -> str:
        installed.made_by.cache_clear()
        return installed.environment.__wrapped__()

    now = fresh()
    assert fresh() == now
    with monkeypatch.context() as patch:
        patch.setattr(installed, "versions", lambda *_: {"torch": "0"})
        other = fresh()
    with monkeypatch.context() as patch:
        patch.setattr(installed.runtimes, "targets", tuple)
        assert len({now, other, fresh()}) == 3
    assert fresh() == now


@dataclasses.dataclass(frozen=True)
class Note:
    """A step that makes one file in its own folder, and publishes another."""

    def run(self, draft: Draft) -> Draft:
        (draft.folder / "report").write_text("x")
        (draft.out / "student").mkdir(exist_ok=True)
        (draft.out / "student/bundle.json").write_text("x")
        bundles = {"student": draft.out / "student"}
        return dataclasses.replace(draft, report=draft.folder / "report", bundles=bundles)


@dataclasses.dataclass(frozen=True)
class Named(Note):
    """Another, which writes the recipe's name down."""

    named: ClassVar = True


@pytest.mark.parametrize("file", [".work/01-test_steps/report", "student/bundle.json"])
def test_a_step_whose_files_changed_runs_again(tmp_path: Path, file: str) -> None:
    """And says which one."""
    out, said = tmp_path / "run", list[tuple[str, str]]()
    short = dataclasses.replace(tiny_recipe(tmp_path), steps=(Note(),))
    assert ran(short, out)[1] == ["test_steps"]
    assert ran(short, out)[1] == []
    for spoil in (lambda: (out / file).write_text("y"), (out / file).unlink):
        spoil()
        said.clear()
        run_steps(short, out, True, on_start=lambda *told: said.append(told))
        assert said == [("test_steps", f"{out.resolve() / file} is no longer what was made, again")]
        assert (out / file).read_text() == "x"


def test_held_out_words_are_in_no_phrase(tmp_path: Path) -> None:
    corpus = easy_vqa.EasyVqa(val_images=50).load()
    corpus = dataclasses.replace(corpus, words=(*corpus.words, "kiosk"))
    assert "submarine" in minilm.words()[:5000]
    texts = Embed(phrases=4000)._texts(corpus, "minilm", 0)
    known = {wording for wordings in corpus.captions for wording in wordings}
    assert len(texts) - len(known) >= 4000
    assert not {word for text in texts for word in text.split()} & set(HELD_OUT_WORDS)


def test_stored_views_are_other_crops_than_the_teachers_lesson() -> None:
    seeds = [view_seed(seed) for seed in range(100)]
    assert seeds == [view_seed(seed) for seed in range(100)]
    assert len({*seeds, *range(100)}) == 200


def test_phrases_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = easy_vqa.EasyVqa(val_images=50).load()
    most = possible_phrases(10) // 2
    assert len(set(Embed(words=10, phrases=most, held_out=1)._texts(corpus, "minilm", 0))) > most
    monkeypatch.setattr(minilm, "words", lambda: ["dog"])
    with pytest.raises(RecipeError, match="1 words of the text tower minilm make too few phrases for 2000 distinct"):
        Embed(phrases=2000)._texts(corpus, "minilm", 0)


def test_every_phrase_can_be_drawn() -> None:
    header = Header("t", "d", 0, 32, Augment(), 14.0, ("a", "b b", "c c c", "d d d d", "held out"), 1)
    rows = np.eye(5, dtype=np.float32)
    corpus = dataclasses.replace(easy_vqa.EasyVqa(val_images=50).load(), captions=(("a",),))
    texts = Texts(corpus, Store(header, rows, rows, rows), minilm.tokenizer({}, 12), 2)
    drawn = {row for seed in range(50) for row in texts.draw(np.random.default_rng(seed))[1:]}
    assert drawn == {0, 1, 2, 3}, "all but the held-out one"


@pytest.mark.parametrize("step", ["teach", "distill"])
def test_a_batch_larger_than_the_train_images_is_refused(tmp_path: Path, step: str) -> None:
    with pytest.raises(RecipeError, match=rf"{step}\.batch is 65, and easy_vqa has 64 train images"):
        ran(tiny_recipe(tmp_path, f"{step}.batch=65"), tmp_path / "run")


def test_a_bad_option_of_a_later_step_is_refused_before_the_first_one_runs(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="timm has no model 'lcnet_05'"):
        check_steps(tiny_recipe(tmp_path, "prune.image_options.model=lcnet_05"))
    with pytest.raises(RecipeError, match=r"max_length must lie in 4\.\.512"):
        check_steps(tiny_recipe(tmp_path, "teach.max_length=2"))


def test_without_resume_everything_runs_and_gives_the_same(tmp_path: Path) -> None:
    first, _ = ran(tiny_recipe(tmp_path), tmp_path / "a")
    second, steps = ran(tiny_recipe(tmp_path), tmp_path / "a", resume=False)
    assert steps == ["teach", "embed", "prune", "distill"]
    assert first.metrics == second.metrics
    vectors = first.metrics["embed.vectors"]
    assert first.embedded == {"new": vectors, "kept": 0}
    assert second.embedded == {"new": 0, "kept": vectors}, "the same teacher said it before"


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
            ran(tiny_recipe(tmp_path), out)
    assert (out / ".work/02-embed.tmp/half").exists()
    assert not (out / ".work/02-embed").exists()
    _, steps = ran(tiny_recipe(tmp_path), out)
    assert steps == ["embed", "prune", "distill"]
    assert not list((out / ".work").glob("*.tmp"))
