"""Two processes that torchrun really starts: one global batch, one loss, one error, one set of files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from compress import processes
from compress.processes import agree, check_share, gathered, is_main, join, main_first, on_main, speaks, world
from runtimes import RecipeError
from tests import ranks
from tests.conftest import ROOT
from tests.streams import shards

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun with gloo is tried on Linux")
# Sums in another order, float32: of gradients whose largest is of order 1.
TOLERANCE = 2e-5
LIMIT = 300  # seconds; a hang is what must not happen


def torchrun(folder: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Two processes on this machine, from this checkout, in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **more}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *command]
    return subprocess.run(
        launch, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT
    )


def ranks_of(case: str, folder: Path, **more: str) -> list[dict[str, Any]]:
    """What both ranks say of a case of tests/ranks.py."""
    done = torchrun(folder, str(ROOT / "tests/ranks.py"), case, str(folder), **more)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["done"]
    return [json.loads((folder / f"{case}-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def said(folder: Path) -> list[dict[str, Any]]:
    return ranks_of("parts", folder)


def test_the_world_size_is_two(said: list[dict[str, Any]]) -> None:
    assert [(each["rank"], each["world"]) for each in said] == [(0, 2), (1, 2)]
    assert [each["share"] for each in said] == [[4, 5], [6, 7]]


def test_all_get_what_the_main_process_made_and_one_error(said: list[dict[str, Any]]) -> None:
    assert [each["main"] for each in said] == ["by 0", "by 0"]
    assert [each["first"] for each in said] == [False, True], "the second one finds what the first one wrote"
    for each in said:
        assert each["spread"] == [10, 20, 30]
        assert each["value"] == 1.5
        assert each["on_main"] == "wrong on 0"
        assert each["main_first"] == each["everywhere"] == "wrong on 1"
        assert each["agree"] == "found by 1"


def test_a_batch_that_cannot_be_shared_is_refused(said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "distill.batch is 15, the batch of all 2 processes together, and does not divide by 2; set it to 16, or start "
        "another number of processes"
    )
    assert [each["batch"] for each in said] == [text, text]
    monkeypatch.setattr(processes._joined, "world", 8)
    with pytest.raises(RecipeError, match=r"does not divide by 8; set it to 72, or"):
        check_share(65, "distill.batch")
    check_share(64, "distill.batch")


@pytest.mark.usefixtures("said")
def test_a_contrastive_loss_sees_the_global_batch_and_goes_back_through_the_gather(folder: Path) -> None:
    loss, tower, top = ranks.contrast()
    loss.backward()  # type: ignore[no-untyped-call]
    for rank in range(2):
        found = torch.load(folder / f"contrast-{rank}.pt", weights_only=True)
        assert found["loss"] == pytest.approx(loss.item(), abs=1e-6)
        assert tower.weight.grad is not None
        assert tower.weight.grad.abs().max() > 0.01
        torch.testing.assert_close(found["tower"], tower.weight.grad, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(found["top"], top.weight.grad, rtol=0, atol=TOLERANCE)


@pytest.mark.usefixtures("said")
def test_a_students_gradients_are_those_of_one_process(folder: Path, tmp_path: Path) -> None:
    """All losses, BatchNorm frozen: every weight within 2e-5 of the largest gradient of its step (float32)."""
    alone = ranks.gradients(tmp_path)
    both = [torch.load(folder / f"gradients-{rank}.pt", weights_only=True) for rank in range(2)]
    for step in ("0", "1"):
        for found in both:
            assert found[step]["loss"] == pytest.approx(alone[step]["loss"], rel=1e-5)
            wanted = alone[step]["grads"]
            assert found[step]["grads"].keys() == wanted.keys()
            largest = max(float(grad.abs().max()) for grad in wanted.values())
            assert largest > 0.01
            for name, grad in wanted.items():
                assert float((found[step]["grads"][name] - grad).abs().max()) <= TOLERANCE * largest, name
    assert any(name.startswith("fusion") for name in alone["0"]["grads"]), "questions were asked"


def test_one_process_knows_nothing_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    join("cuda:1")  # no torchrun: nothing to join
    assert (world(), is_main(), gathered("x"), speaks()) == (1, True, ["x"], True)
    assert not torch.distributed.is_initialized()
    assert on_main(lambda: 3) == main_first(lambda: 3) == 3
    agree(None)
    with pytest.raises(RecipeError, match="mine"):
        agree(RecipeError("mine"))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="device is cuda:1, and 2 processes would share it; set it to cuda, a GPU"):
        join("cuda:1")
    monkeypatch.setenv("RANK", "1")
    assert not speaks(), "rank 0 makes the same mistake, and tells"


def test_a_mistake_is_told_once_and_nothing_is_written(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "-m", "compress.distill", "easy_vqa", "--set", "distill.batch=63")
    assert done.returncode == 1, "torchrun's own"
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, done.stderr
    assert told[0].startswith("error: distill.batch is 63, the batch of all 2 processes together")
    assert not (tmp_path / "out").exists()


def test_a_rank_that_fails_in_training_ends_all_and_resume_ends_the_same(tmp_path: Path) -> None:
    """Two of four steps, then rank 1 fails: both end with its error. Resumed, the weights are those of a run that was
    left alone; and one process finds nothing left to do."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    first = ranks_of("tiny", whole)
    assert first[0]["draft"] == first[1]["draft"]
    assert first[0]["ran"] == ["teach", "embed", "prune", "distill"]
    pace = json.loads(first[0]["draft"])["pace"]
    assert pace["distill: train"]["processes"] == 2

    often = {"PUPIL_CHECKPOINT_SECONDS": "0"}
    done = torchrun(cut, str(ROOT / "tests/ranks.py"), "stop2", str(cut), **often)
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert told == ["error: rank 1 has had enough"], done.stderr
    assert "distill: train: goes on" not in done.stderr
    work = cut / "out/.work"
    assert (work / "04-distill.tmp/checkpoint-distill.pt").exists()

    again = torchrun(cut, str(ROOT / "tests/ranks.py"), "tiny", str(cut), **often)
    assert again.returncode == 0, again.stderr[-3000:]
    assert len(re.findall(r"distill: train: goes on after 2 of 4", again.stderr)) == 1, again.stderr
    assert json.loads((cut / "tiny-0.json").read_text())["ran"] == ["distill"]
    for name in ("image", "text", "fusion"):
        file = f"out/.work/04-distill/student/{name}.safetensors"
        assert (cut / file).read_bytes() == (whole / file).read_bytes(), name

    (cut / "0").mkdir(exist_ok=True)
    assert ranks.tiny(cut)["ran"] == []


def test_each_process_unpacks_its_own_shards_and_all_see_the_same(tmp_path: Path) -> None:
    shards(tmp_path)
    first, second = ranks_of("shards", tmp_path)
    assert first["read"] == ["shop-000.tar", "shop-002.tar"]
    assert second["read"] == ["shop-001.tar", "shop-003.tar"]
    assert first["data"] == second["data"] != ""
    assert first["photos"] == second["photos"] == 48


def test_a_shard_that_one_process_cannot_read_is_told_once(tmp_path: Path) -> None:
    shards(tmp_path)
    (tmp_path / "shop-001.tar").write_bytes(b"no tar" * 500)
    done = torchrun(tmp_path, str(ROOT / "tests/ranks.py"), "shards", str(tmp_path))
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, done.stderr
    assert "shop-001.tar is no whole .tar file" in told[0]
