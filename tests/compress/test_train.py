"""The training loop: whenever it is stopped, going on ends in the same bits as never having been stopped."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress import train as module
from compress.schedule import warm_cosine
from compress.train import train
from runtimes import RecipeError

STEPS = 12


class Net(nn.Module):
    """Something of each kind: frozen weights, BatchNorm's statistics, dropout's draws."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.frozen = nn.Conv2d(3, width, 3).requires_grad_(False)
        self.norm = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, 3)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(width, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 (N, 3, H, W) to float32 (N, 4)."""
        seen = self.conv(self.norm(self.frozen(pixels)).relu()).mean((2, 3))
        scores: Tensor = self.head(self.drop(seen))
        return scores


def run(
    file: Path, stop: int | None = None, width: int = 8, steps: int = STEPS, average: float = 0.0
) -> tuple[dict[str, Any], list[int]]:
    """Weights, statistics, optimizer and schedule after training, and the steps that were really taken."""
    model = Net(width)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, schedule = warm_cosine([{"params": weights, "lr": 0.05}], steps, 0.3, 0.02)
    taken: list[int] = []

    def loss_of(step: int) -> Tensor:
        if step == stop:
            raise KeyboardInterrupt
        taken.append(step)
        drawn = torch.Generator().manual_seed(step)
        pixels, label = torch.randn(6, 3, 9, 9, generator=drawn), torch.randint(4, (6,), generator=drawn)
        return nn.functional.cross_entropy(model(pixels), label)

    seconds = train("net: train", model, (optimizer, schedule), steps, loss_of, file, average)
    assert seconds > 0
    assert not model.training
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rate": schedule.get_last_lr()}
    return state, taken


def same(one: object, two: object) -> bool:
    if isinstance(one, Tensor):
        return isinstance(two, Tensor) and torch.equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return isinstance(two, list) and len(one) == len(two) and all(map(same, one, two))
    return one == two


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step."""
    monkeypatch.setenv(module.EVERY_VARIABLE, "0")
    monkeypatch.setattr(module, "SHARE", float("inf"))


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("stops", [(1,), (7,), (STEPS - 1,), (2, 5, 9)])
def test_stopped_and_resumed_is_bit_for_bit_uninterrupted(
    tmp_path: Path, stops: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    whole, taken = run(tmp_path / "checkpoint-whole.pt")
    assert taken == list(range(STEPS))
    assert "goes on" not in capsys.readouterr().err
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "checkpoint-net.pt", stop)
    capsys.readouterr()
    state, taken = run(tmp_path / "checkpoint-net.pt")
    assert taken == list(range(stops[-1], STEPS))
    assert same(state, whole)
    assert f"net: train: goes on after {stops[-1]} of {STEPS}" in capsys.readouterr().err


@pytest.mark.usefixtures("often")
def test_what_was_trained_to_the_end_is_not_trained_again(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "checkpoint-net.pt")
    torch.manual_seed(99)
    state, taken = run(tmp_path / "checkpoint-net.pt")
    assert taken == []
    assert same(state, whole)


@pytest.mark.usefixtures("often")
def test_a_checkpoint_holds_what_is_trained_and_nothing_frozen(tmp_path: Path) -> None:
    run(tmp_path / "checkpoint-net.pt")
    state = torch.load(tmp_path / "checkpoint-net.pt", weights_only=True)
    assert {name.partition(".")[0] for name in state["model"]} == {"norm", "conv", "head"}
    assert "norm.running_var" in state["model"]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-net.pt"]


def test_a_short_training_saves_once_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = module._save

    def noted(*given: Any) -> None:
        saved.append(given[-1])
        save(*given)

    monkeypatch.setattr(module, "_save", noted)
    run(tmp_path / "checkpoint-net.pt")
    assert saved == [STEPS]
    monkeypatch.setenv(module.EVERY_VARIABLE, "0")
    monkeypatch.setattr(module, "SHARE", 1e-9)  # the first one shows that saving is dear
    saved.clear()
    run(tmp_path / "checkpoint-other.pt")
    assert saved == [1, STEPS]


@pytest.mark.usefixtures("often")
def test_a_checkpoint_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint-net.pt"
    run(file)
    again = r"checkpoint-net.pt cannot be used \((.|\n)*; remove it and run again"
    with pytest.raises(RecipeError, match=again):
        run(file, width=9)
    with pytest.raises(RecipeError, match=r"\(it is of another model or another number of steps\); remove it"):
        run(file, steps=STEPS - 1)
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no zip"):
        file.write_bytes(damaged)
        with pytest.raises(RecipeError, match=again):
            run(file)


@pytest.mark.usefixtures("often")
def test_the_pace_is_that_of_steps_without_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that a step moves by its number from 1, and a checkpoint by 1000."""
    now = 0.0

    def clock() -> float:
        return now

    monkeypatch.setattr(module.time, "perf_counter", clock)
    save = module._save

    def slow(*given: Any) -> None:
        nonlocal now
        now += 1000
        save(*given)

    monkeypatch.setattr(module, "_save", slow)

    def trained(stop: int | None = None) -> float:
        layer = nn.Linear(2, 1)

        def loss_of(step: int) -> Tensor:
            nonlocal now
            if step == stop:
                raise KeyboardInterrupt
            now += step + 1
            return layer(torch.ones(1, 2)).sum()  # type: ignore[no-any-return]

        pair = warm_cosine([{"params": layer.parameters(), "lr": 0.1}], 5, 0.0, 0.0)
        return train("line: train", layer, pair, 5, loss_of, tmp_path / "checkpoint-line.pt")

    with pytest.raises(KeyboardInterrupt):
        trained(stop=2)
    assert trained() == 3, "of all five, those before it was interrupted too"
    assert trained() == 3, "none was left to take: what the checkpoint says"


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_and_is_not_kept(tmp_path: Path, value: str) -> None:
    model = Net()
    pair = warm_cosine([{"params": model.parameters(), "lr": 0.1}], 3, 0.0, 0.0)
    with pytest.raises(RecipeError, match=rf"net: train: the loss of step 0 is {value}; lower the learning rate"):
        train("net: train", model, pair, 3, lambda _: torch.tensor(float(value)), tmp_path / "checkpoint-net.pt")
    assert not list(tmp_path.iterdir())


def test_the_seconds_between_checkpoints_must_be_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.EVERY_VARIABLE, "often")
    with pytest.raises(RecipeError, match="PUPIL_CHECKPOINT_SECONDS must be a number of seconds, got 'often'; unset"):
        run(tmp_path / "checkpoint-net.pt")


def breaks_at(monkeypatch: pytest.MonkeyPatch, size: int, error: BaseException) -> None:
    """Files opened for writing take `size` bytes, then raise."""
    really: Callable[..., Any] = Path.open

    def opened(path: Path, *mode: Any) -> Any:
        file = really(path, *mode)
        if mode == ("wb",):
            write = file.write
            file = _Full(file, write, size, error)
        return file

    monkeypatch.setattr(Path, "open", opened)


class _Full:
    def __init__(self, file: Any, write: Callable[..., int], size: int, error: BaseException) -> None:
        self.file, self.inner, self.left, self.error = file, write, size, error

    def write(self, data: bytes) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise self.error
        return self.inner(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("size", [0, 100, 3000])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_broken_write_is_what_it_is_and_spares_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, error: BaseException
) -> None:
    """torch would say "unexpected pos 64 vs 0"."""
    file = tmp_path / "checkpoint-net.pt"
    whole, _ = run(tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        run(file, 5)
    with monkeypatch.context() as patch:
        breaks_at(patch, size, error)
        with pytest.raises(type(error)):
            run(file)
    state, taken = run(file)
    assert taken[0] == 5
    assert same(state, whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full (Linux)")
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoint-net.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        run(tmp_path / "checkpoint-net.pt")


@pytest.mark.parametrize("seconds", ["nan", "-1", "inf", "soon"])
def test_the_seconds_between_checkpoints_are_a_number(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.EVERY_VARIABLE, seconds)
    with pytest.raises(RecipeError, match=f"must be a number of seconds, got '{seconds}'; unset it"):
        module._seconds_between()


def test_rows_that_are_gathered_many_times_add_up_to_the_same_bits(tmp_path: Path) -> None:
    """Questions share a few texts: threads race for the gradient of a row (not seen on one core)."""
    drawn = torch.Generator().manual_seed(0)
    features, rows = torch.randn(4, 16, 128, generator=drawn), torch.randint(4, (512,), generator=drawn)
    weights = torch.randn(512, 16, 128, generator=drawn)  # no two gradients of a row are alike
    ends = set()
    for number in range(4):
        torch.manual_seed(1)
        model = nn.Linear(128, 128)
        optimizer = warm_cosine([{"params": list(model.parameters()), "lr": 0.05}], 3, 0.3, 0.0)

        def loss_of(step: int, model: nn.Module = model) -> Tensor:
            gathered: Tensor = model(features)[rows]
            return (gathered * weights).mean() * (step + 1)

        train("rows: train", model, optimizer, 3, loss_of, tmp_path / f"{number}.pt")
        ends.add(model.weight.detach().numpy().tobytes())
    assert len(ends) == 1
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_average_of_the_weights_is_what_is_left(tmp_path: Path) -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    optimizer = warm_cosine([{"params": list(model.parameters()), "lr": 0.1}], 3, 0.0, 0.0)
    seen = [1.0]

    def loss_of(step: int) -> Tensor:
        seen.append(model.weight.item())
        return model.weight.sum()

    train("line: train", model, optimizer, 3, loss_of, tmp_path / "c.pt", average=0.9)
    last = torch.load(tmp_path / "c.pt", weights_only=True)["model"]["weight"].item()
    mean = 1.0
    for step, value in enumerate([*seen[2:], last]):
        keep = min(0.9, (1 + step) / (10 + step))
        mean = keep * mean + (1 - keep) * value
    assert model.weight.item() == pytest.approx(mean, abs=1e-6)
    assert model.weight.item() != pytest.approx(last, abs=1e-3)


@pytest.mark.usefixtures("often")
def test_an_interrupted_average_ends_the_same(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole.pt", average=0.8)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut.pt", stop=5, average=0.8)
    again, taken = run(tmp_path / "cut.pt", average=0.8)
    assert taken[0] == 5
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, again["model"][name]), name
    with pytest.raises(RecipeError, match="it is of another model or another number of steps"):
        run(tmp_path / "cut.pt")
