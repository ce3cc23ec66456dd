"""Where torch trains: what is refused, and that a run on a GPU is another run."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from compress.device import check_device, default_device, kind, on_device
from compress.draft import DatasetSpec, Draft
from compress.recipe import Recipe, load_recipe
from compress.steps import StepDone, check_steps, run_steps
from runtimes import Unavailable

GPU = "device is cuda:2, and torch "


def test_a_gpu_that_is_not_here_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    recipe = load_recipe("easy_vqa", ["device=cuda:2"])
    build = r"is built without CUDA; install a GPU's driver and a build of torch for it \(https://pytorch"
    with pytest.raises(Unavailable, match=rf"{GPU}\S+ {build}.*, or leave device out to train on the CPU"):
        check_steps(recipe)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(Unavailable, match=rf"{GPU}\S+ finds no GPU, or no driver of one; install"):
        check_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(Unavailable, match=f"{GPU}finds 2 of them here; choose from: cuda:0, cuda:1"):
        check_device("cuda:2")
    for device in ("cpu", "cuda", "cuda:1"):
        check_device(device)


def test_within_it_tensors_are_made_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On "meta", which is always here."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is as before after the test
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    seen: list[str] = []

    class Making:
        @on_device
        def run(self, draft: Draft) -> Draft:
            """What device a new tensor is on."""
            seen.append(str(torch.zeros(1).device))
            return draft

    draft = Draft(tmp_path, tmp_path, 0, DatasetSpec("easy_vqa"))
    Making().run(draft)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    Making().run(dataclasses.replace(draft, device="meta"))
    assert seen == ["cpu", "meta"]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8", "else sums on a GPU differ from run to run"
    with default_device("cpu"):
        assert torch.zeros(1).device.type == "cpu"


@dataclasses.dataclass(frozen=True)
class Nothing:
    """A step that makes nothing."""

    def run(self, draft: Draft) -> Draft:
        """The draft as it is."""
        return draft


def test_the_kind_of_device_is_in_the_key_and_the_cpu_is_not(tmp_path: Path) -> None:
    keys: list[str] = []

    def note(done: StepDone) -> None:
        keys.append(done.key)
        drafts.append(done.draft)

    drafts: list[Draft] = []
    recipe = Recipe("none", "", 0, 1, DatasetSpec("easy_vqa"), (Nothing(),))
    for device in ("cpu", "cuda", "cuda:1"):
        run_steps(dataclasses.replace(recipe, device=device), tmp_path / "run", True, note)
    assert keys[0] != keys[1] == keys[2]
    assert [draft.device for draft in drafts] == ["cpu", "cuda", "cuda:1"], "done before on another GPU"
    assert (kind("cpu"), kind("cuda:1")) == ("cpu", "cuda")
