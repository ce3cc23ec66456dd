"""Recipes: what is accepted, and the text of every refusal."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress.draft import DatasetSpec
from compress.recipe import load_recipe, step_name
from compress.steps import check_steps
from compress.steps.teach import Teach
from runtimes import RecipeError

GOOD = """
name = "small"
seed = 3
[data]
name = "easy_vqa"
[teach]
epochs = 2
[embed]
[prune]
[distill]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(GOOD)
    return path


def test_steps_come_in_the_order_of_the_file(recipe: Path) -> None:
    loaded = load_recipe(recipe)
    assert [step_name(step) for step in loaded.steps] == ["teach", "embed", "prune", "distill"]
    assert isinstance(loaded.steps[0], Teach)
    assert (loaded.name, loaded.seed, loaded.steps[0].epochs) == ("small", 3, 2)


def test_overrides_are_typed_as_toml_is(recipe: Path) -> None:
    asked = ["seed=7", "teach.lr=1", "teach.image=timm_image", "teach.image_options.model=lcnet_050"]
    asked += ["teach.augment.shift=0.1", "data.val_images=100", "teach.text_options={vocab = 8000}"]
    loaded = load_recipe(recipe, asked)
    teach = loaded.steps[0]
    assert isinstance(teach, Teach)
    assert (loaded.seed, teach.lr, teach.image, teach.image_options) == (7, 1.0, "timm_image", {"model": "lcnet_050"})
    assert (teach.augment.shift, teach.augment.scale, teach.text_options) == (0.1, 0.12, {"vocab": 8000})
    assert loaded.dataset.fields == {"val_images": 100}
    assert loaded.device == "cpu"
    assert load_recipe(recipe, ["device=cuda:1"]).device == "cuda:1"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("teach.epoch=3", r"\[teach\] has no field 'epoch' \(did you mean 'epochs'\?\); fields: .*image_options"),
        ("teech.epochs=3", r"no step 'teech' \(did you mean 'teach'\?\); it has: data, teach, embed, prune, distill"),
        ("teach.epochs=many", r"teach.epochs must be int, got 'many' \(str\)"),
        ("teach.epochs=true", r"teach.epochs must be int, got True"),
        ("teach.epochs=2.5", r"teach.epochs must be int, got 2.5"),
        ("teach.epochs=0", "epochs, dim, lr and projection_lr must be above 0"),
        ("teach.lr=nan", "teach.lr must be a finite number, got nan"),
        ("distill.affinity=inf", "distill.affinity must be a finite number, got inf"),
        (f"teach.lr=1{'0' * 400}", "teach.lr must be a finite number, got 10000"),
        ("teach.augment.shift=-inf", "teach.augment.shift must be a finite number, got -inf"),
        ("teach.warmup=1.5", r"teach\.warmup is a share, 0\.\.1, got 1\.5"),
        ("teach.batch=1", "and batch at least 2"),
        ("distill.warmup=-1", r"distill\.warmup is a share, 0\.\.1, got -1"),
        ("distill.text_every=0", "distill: epochs, phrases, questions, text_every, lr and text_lr must be above 0"),
        ("distill.questions=0", "distill: epochs, phrases, questions, text_every, lr and text_lr must be above 0"),
        ("distill.answer=-1", "the weights of losses must not be negative"),
        ("teach.width=0", "teach: width and questions must be at least 1"),
        ("teach.questions=0", "teach: width and questions must be at least 1"),
        ("teach.head_epochs=-1", "head_epochs, mixup and the weights of tasks must not be negative"),
        ("teach.mixup=-0.1", "head_epochs, mixup and the weights of tasks must not be negative"),
        ("teach.answer=-1", "head_epochs, mixup and the weights of tasks must not be negative"),
        ("teach.smoothing=2", r"teach\.smoothing is a share, 0\.\.1, got 2"),
        ("teach.fusion=sum", "no fusion named 'sum'; fusions: attention"),
        ("distill.contrast=-0.1", "the weights of losses must not be negative"),
        ("embed.views=0", "views and batch must be at least 1, words at least 2"),
        ("embed.train_size=8", r"embed\.train_size must be at least 32 pixels, or 0 for the teacher's, got 8"),
        ("distill.train_size=8", r"distill\.train_size must be at least 32 pixels, or 0 for the student's, got 8"),
        ("embed.held_out=4000", r"embed\.held_out must lie between 1 and phrases - 1 \(3999\)"),
        ("embed.words=2", "2 words make 20 phrases, and phrases may be at most half of that, not 4000"),
        ("teach.size=20", r"teach\.size and train_size must be at least 32 pixels, got 20 and 0"),
        ("teach.augment.brightness=2", "brightness must lie in 0..1"),
        ("teach.augment.hue=0.1", r"\[teach.augment\] has no field 'hue'"),
        ("teach.image=efficientnet", r"no image tower named 'efficientnet' \(did you mean 'efficientnet_lite\d'"),
        ("teach.text=clip", r"no text tower named 'clip'; text towers: minilm"),
        ("prune.image=clip", r"no image tower named 'clip'; image towers: efficientnet_lite0, .*, timm_image"),
        ("teach=3", "'teach' is a step; set one of its fields"),
        ("teach.epochs", r"--set wants step.field=value \(or seed=3\), got 'teach.epochs'"),
        ("teach.epochs.x=1", "'epochs' holds a value"),
        ("sead=1", r"a recipe has no setting 'sead' \(did you mean 'seed'\?\)"),
        ("seed=one", "seed must be int, got 'one'"),
        ("seed=-1", "seed must be 0 or more, got -1"),
        ("device=gpu", "device must be cpu, cuda, or cuda:N for one of several GPUs, got 'gpu'"),
        ("device=cuda:", "device must be cpu, cuda, or cuda:N for one of several GPUs, got 'cuda:'"),
        ("device=0", "device must be str, got 0"),
        ("name=../evil", r"a recipe's name is letters, digits, '-' and '_', got '\.\./evil'"),
        ("data.name=easy_vqq", r"no data set named 'easy_vqq' \(did you mean 'easy_vqa'\?\)"),
        ("data.val=3", r"\[data\] has no field 'val'"),
    ],
)
def test_a_bad_override_is_refused(recipe: Path, override: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        load_recipe(recipe, [override])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[data]\nname = 'easy_vqa'\n[tech]\n", r"no step named 'tech' \(did you mean 'teach'\?\); steps: "),
        ("[teach]\n", r"needs a \[data\] table"),
        ("name = ", "is not valid TOML"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(RecipeError, match=says):
        load_recipe(tmp_path / "bad.toml")


def test_an_unknown_recipe_names_those_that_exist() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'easy_vqq' \(did you mean 'easy_vqa'\?\); recipes: easy_vqa"):
        load_recipe("easy_vqq")
    with pytest.raises(RecipeError, match=r"no recipe file nowhere.toml"):
        load_recipe("nowhere.toml")


def test_a_typo_costs_no_torch(recipe: Path) -> None:
    code = (
        "import sys\nfrom compress.recipe import load_recipe\n"
        f"load_recipe({str(recipe)!r})\nprint(sorted({{'torch', 'timm', 'transformers', 'nncf'}} & set(sys.modules)))"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", f"after {time.perf_counter() - started:.1f} s"


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        (["teach", "distill"], r"\[distill\] needs store, and no step before it makes that; the recipe has: teach, d"),
        (["embed", "teach"], r"\[embed\] needs teacher"),
        (["teach", "embed", "distill"], r"\[distill\] needs student"),
        (["teach", "prune"], r"\[prune\] needs store"),
        (["teach", "embed", "prune", "distill", "gate"], r"\[gate\] needs graphs"),
        (["pack"], r"\[pack\] needs bundles"),
    ],
)
def test_steps_in_an_order_that_cannot_work(tmp_path: Path, steps: list[str], text: str) -> None:
    path = tmp_path / "small.toml"
    path.write_text('name = "small"\n[data]\nname = "easy_vqa"\n' + "".join(f"[{step}]\n" for step in steps))
    with pytest.raises(RecipeError, match=text):
        check_steps(load_recipe(path))


def test_a_base_is_taken_but_for_what_is_named(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('base = "easy_vqa"\n[prune]\nimage_blocks = 1\n[data]\nval_images = 60\n')
    recipe, base = load_recipe(mine), load_recipe("easy_vqa")
    assert (recipe.name, recipe.description) == ("mine", base.description)
    assert recipe.dataset == DatasetSpec("easy_vqa", {"val_images": 60})
    changed = [(step_name(a), a, b) for a, b in zip(recipe.steps, base.steps, strict=True) if a != b]
    ((name, ours, theirs),) = changed
    assert (name, ours) == ("prune", dataclasses.replace(theirs, image_blocks=1))  # type: ignore[type-var]
    again = tmp_path / "again.toml"
    again.write_text('base = "mine.toml"\n')  # beside it, wherever the command runs
    with pytest.raises(RecipeError, match="has a base itself; name that one, 'easy_vqa', instead"):
        load_recipe(again)
    mine.write_text('base = "easy_vqa"\n[polish]\n')
    with pytest.raises(RecipeError, match=r"mine\.toml has a step \[polish\] that its base 'easy_vqa' lacks"):
        load_recipe(mine)
