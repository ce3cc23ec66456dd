"""A study's file: what its rows are, and the text of every refusal."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from compress import installed
from compress.cross_validate import teacher_recipes
from compress.recipe import load_recipe, step_name
from compress.steps.distill import Distill
from compress.study_plan import STUDIES, jobs_of, load_study, row_recipes
from runtimes import RecipeError
from tests.tiny import TINY

GOOD = """
recipe = "tiny.toml"
seeds = 2
set = ["distill.epochs=2"]
[[rows]]
name = "one"
set = ["distill.contrast=0.5"]
[[rows]]
name = "two"
on = "one"
set = ["distill.feature=0.5"]
until = "quantize"
[[rows]]
name = "other"
until = "prune"
[[rows]]
name = "full"
on = "two"
final = true
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(TINY + "[quantize]\n[gate]\n[pack]\n")
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    return path


def test_rows_add_up_and_share_what_they_have_in_common(file: Path) -> None:
    study = load_study(file)
    assert study.name == "mine"
    assert [getattr(study.compared(row), "name", None) for row in study.rows] == [None, "one", "two", "two"]
    recipes = row_recipes(study, ["distill.affinity=3", "data.val_images=60"])
    ends = {name: step_name(recipe.steps[-1]) for name, recipe in recipes.items()}
    assert ends == {"one": "distill", "two": "quantize", "other": "prune"}
    assert recipes["two"].dataset.fields["val_images"] == 60
    distill = recipes["two"].steps[3]
    assert isinstance(distill, Distill)
    assert (distill.epochs, distill.contrast, distill.feature, distill.affinity) == (2, 0.5, 0.5, 3)

    jobs = jobs_of(study, recipes, 2, "key")
    assert [(job.row.name, job.seed) for job in jobs] == [
        (name, seed) for seed in (0, 1) for name in ("one", "two", "other")
    ]
    one, two, other, again = jobs[:4]
    assert [step_name(step) for step in two.steps] == ["prune", "distill", "quantize"]
    assert one.keys[0] == two.keys[0] == other.keys[0] != again.keys[0]
    assert one.keys[1] != two.keys[1]
    assert len({job.keys[-1] for job in jobs}) == 6
    assert jobs_of(study, recipes, 1, "key") == jobs[:3]
    assert jobs_of(study, recipes, 1, "other key")[0].keys[0] != one.keys[0]


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.toml")))
def test_the_studies_that_come_with_it_can_be_read(name: str) -> None:
    study = load_study(name)
    recipes = teacher_recipes(study) if name.endswith("_teacher") else row_recipes(study)
    assert set(recipes) == {row.name for row in study.rows if not row.final}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seeds = 2", "seeds = 0", "a study needs at least 1 seed, got 0"),
        ("seeds = 2", "seeds = true", "mine.seeds must be int, got True"),
        ("seeds = 2", "sets = []", r"\[mine\] has no field 'sets' \(did you mean 'set'\?\)"),
        ('recipe = "tiny.toml"', "", r'a study needs recipe = "NAME" and at least one \[\[rows\]\] with a name'),
        ('recipe = "tiny.toml"', 'recipe = "groceri"', r"no recipe 'groceri' \(did you mean 'grocery'\?\)"),
        ('name = "two"', 'name = "one"', "every row needs a name of its own, got 'one'; rows: one, one, other, full"),
        (
            'on = "one"',
            'on = "ones"',
            r"the row 'two' is on 'ones', which is no row that is trained \(did you mean 'one'",
        ),
        ('on = "one"', 'on = "full"', "is on 'full', which is no row that is trained; those are: one, two, other"),
        (
            'on = "one"',
            'on = "two"',
            "rows of a study are on each other in a circle: 'two' on 'two'; one must be on none",
        ),
        ("final = true", "final = true\nuntil = 'gate'", "the row 'full' is final, as it was published; leave out its"),
        (
            "final = true",
            "final = true\nuntill = 'gate'",
            r"\[mine.rows\] has no field 'untill' \(did you mean 'until'",
        ),
        (
            'until = "quantize"',
            'until = "quantise"',
            r"row 'two' is measured after 'quantise' \(did you mean 'quantize'",
        ),
        ('until = "quantize"', 'until = "pack"', "measured after: prune, distill, quantize, gate$"),
        (
            "distill.epochs=2",
            "teach.epochs=2",
            "'teach.epochs=2' would change them; set fields of: prune, distill, quanti",
        ),
        ("distill.epochs=2", "seed=2", "a study takes teacher and store as they are, and 'seed=2' would change them"),
        ("distill.epochs=2", "distill.epoch=2", r"\[distill\] has no field 'epoch'"),
        (
            "distill.contrast=0.5",
            "prune.hold_out=0.5",
            "rows of a study must hold out the same images: set prune.hold",
        ),
    ],
)
def test_a_bad_study_is_refused(file: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(RecipeError, match=says):
        row_recipes(load_study(file))


def test_a_circle_of_two(file: Path) -> None:
    file.write_text(GOOD.replace('name = "one"', 'name = "one"\non = "two"'))
    with pytest.raises(RecipeError, match="in a circle: 'one' on 'two' on 'one'; one must be on none"):
        load_study(file)


def test_other_refusals(file: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"there is no study 'grocry' \(did you mean 'grocery'\?\); studies: grocery, "
    ):
        load_study("grocry")
    with pytest.raises(RecipeError, match=r"there is no study file no\.toml; give its path"):
        load_study("no.toml")
    with pytest.raises(RecipeError, match=r"'embed\.views=3' would change them"):
        row_recipes(load_study(file), ["embed.views=3"])
    (file.parent / "tiny.toml").write_text(TINY.replace("[embed]", "[prune]\n[distill]\n#").partition("#")[0])
    with pytest.raises(
        RecipeError, match="recipe tiny has no step that makes a store: there is nothing for students to"
    ):
        row_recipes(load_study(file))


def test_a_study_that_changes_makes_no_step_run_again(tmp_path: Path) -> None:
    (tmp_path / "compress/studies").mkdir(parents=True)
    before = installed.sources_hash(tmp_path)
    (tmp_path / "compress/studies/mine.toml").write_text("seeds = 1")
    assert installed.sources_hash(tmp_path) == before
    (tmp_path / "compress/mine.toml").write_text("seeds = 1")
    assert installed.sources_hash(tmp_path) != before


def test_the_study_of_grocerys_teacher() -> None:
    """A row adds to the one it is on what its name says and nothing else, as much as the recipe has of it."""
    study = load_study(STUDIES / "grocery_teacher.toml")
    teachers = {name: dataclasses.asdict(recipe.steps[0]) for name, recipe in teacher_recipes(study).items()}
    whole = dataclasses.asdict(load_recipe("grocery").steps[0])
    added = {
        "labels alone": set(),
        "+ smaller frames in training": {"train_size"},
        "+ fitted start": {"fit"},
        "+ product texts": {"align", "margin"},
        "+ free classifier": {"classifier"},
        "+ label smoothing": {"smoothing"},
        "+ average of weights": {"average"},
        "+ mixup": {"mixup"},
        "+ closer crops": {"augment.crop"},
        "+ tint": {"augment.tint"},
    }
    assert list(added) == list(teachers) == [row.name for row in study.rows]

    def flat(fields: dict[str, Any]) -> dict[str, Any]:
        more = {f"augment.{name}": value for name, value in fields["augment"].items()}
        return {name: value for name, value in fields.items() if name != "augment"} | more

    for row in study.rows:
        below = study.chain(row)[-2].name if row.on else row.name
        one, two = flat(teachers[below]), flat(teachers[row.name])
        assert {name for name in one if one[name] != two[name]} == added[row.name], row.name
        assert all(two[name] == flat(whole)[name] for name in added[row.name] - {"train_size"}), row.name
    last, wanted = flat(teachers["+ tint"]), flat(whole)
    schedule = {"image", "size", "epochs", "train_size", "augment.source"}
    assert {name for name in wanted if last[name] != wanted[name]} <= schedule | {"mixup"}, (
        "all of the recipe has a row"
    )


def test_the_students_that_are_shipped_are_on_the_front_of_grocery() -> None:
    """Their shapes are rows; beside them stands what only depth costs, and only the size of crops."""
    rows = row_recipes(load_study("grocery_front"))
    prune, distill = ({name: recipe.steps[at] for name, recipe in rows.items()} for at in (2, 3))
    shipped = {
        "grocery": "teacher cut to 0.75, 240 px",
        "grocery-xs": "teacher less 4 blocks, cut to 0.42, 192 px",
    }
    for name, row in shipped.items():
        own = load_recipe(name)
        assert prune[row] == dataclasses.replace(own.steps[2], hold_out=0.2)
        assert distill[row] == dataclasses.replace(own.steps[3], epochs=4)
    whole = prune["teacher cut to 0.65, 224 px"]
    assert prune["teacher less 2 blocks, cut to 0.65, 224 px"] == dataclasses.replace(whole, image_blocks=2)
    assert prune["lite0, 224 px, crops of 192"] == prune["lite0, 224 px"]
