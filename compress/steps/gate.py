"""gate: is what will be deployed good enough? The student's bundle, opened by the SDK on every CPU engine that is here,
on the validation split. What is not good enough is mended, a little more each time, or refused with the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from compress.draft import Draft, ModelFiles
from runtimes import GateFailed, RecipeError

if TYPE_CHECKING:
    from compress.recipe import Step
    from compress.trial import Attempt, Trial

    Layer = tuple[str, str]  # tower, node

ALLOW = "allow more (gate.max_drop, gate.max_map_drop, gate.max_answer_drop)"
SHOWN = 3  # failures of an attempt that a refusal quotes; attempts.json has all
FEWEST, MOST = 10, 100  # images on which layers are ranked


@dataclass(frozen=True)
class Gate:
    """What the int8 student may lose to the teacher on the validation split, on every engine.

    `max_drop`: points (0..100) of zero-shot top-1, `max_map_drop` of text-to-image mAP (0..1), `max_answer_drop` points
    of answers. A single class, or answer, may lose more only if an exact McNemar test finds no less than `alpha` for it
    (Holm's correction over all of them). An average may, while the photos lost, net, are fewer than can ever be more
    than chance: 5 for an `alpha` of 0.05, see compress/judge.py. With an `alpha` of 0 nothing is tested: no class, and
    averages are judged as they are. `golden`: samples that the bundle carries to prove itself with.

    What a class test can see depends on n: of 353 labelled images in 24 classes, 11 of a class must be lost to be more
    than chance, so it adds to the average where that is allowed more, and for answers, which are thousands.

    Where more is lost, up to `restore` of the most sensitive layers go back to float (0: none), then the student's
    image tower is trained with its rounding for `qat_epochs` at the learning rate `qat_lr` (0: never); with
    `always_qat` it is that in any case, and nothing else is tried.

    `unknown`: share (0..1) of the labelled validation images that may be called "none of these"; the bundles get the
    threshold that does so (0: none).
    """

    needs: ClassVar = ("graphs",)
    makes: ClassVar = ("bundles",)

    max_drop: float = 1.0
    max_map_drop: float = 0.02
    max_answer_drop: float = 1.0
    alpha: float = 0.05
    golden: int = 8
    restore: int = 8
    qat_epochs: int = 2
    qat_lr: float = 1e-4
    always_qat: bool = False
    unknown: float = 0.0

    def __post_init__(self) -> None:
        # So written, they refuse nan too.
        if not (self.max_drop >= 0 and self.max_map_drop >= 0 and self.max_answer_drop >= 0):
            raise RecipeError("gate.max_drop, gate.max_map_drop and gate.max_answer_drop must not be negative")
        if not 0 <= self.alpha < 1:
            raise RecipeError(f"gate.alpha must lie in 0..1 (0: nothing is tested), got {self.alpha:g}")
        if not 2 <= self.golden <= 50:  # two, to be told apart; fifty, the smallest validation split
            raise RecipeError(f"gate.golden must lie in 2..50 samples, got {self.golden}")
        if self.restore < 0 or self.qat_epochs < 0 or not self.qat_lr > 0:
            raise RecipeError("gate.restore and gate.qat_epochs must not be negative, and gate.qat_lr above 0")
        if self.always_qat and not self.qat_epochs:
            raise RecipeError("gate.always_qat trains for gate.qat_epochs, which is 0; set it to at least 1")
        if not 0 <= self.unknown < 1:
            raise RecipeError(f"gate.unknown is a share, from 0 to below 1, got {self.unknown:g}")

    def check(self) -> None:
        """Raises Unavailable without a CPU engine."""
        from compress.engines import cpu_targets

        cpu_targets()

    def check_after(self, steps: Sequence[Step]) -> None:
        """Raises RecipeError if a student may have to be retrained, and nothing stores what it would learn from."""
        if self.qat_epochs and not any("store" in getattr(step, "makes", ()) for step in steps):
            raise RecipeError(
                "gate.qat_epochs retrains the student from what [embed] stores, and no step before it does; set it to "
                "0, or add [embed]"
            )

    def run(self, draft: Draft) -> Draft:
        """Writes the teacher's bundle and one of each attempt into the step's folder, and attempts.json.

        The student that passed is the draft's. Raises GateFailed, naming engine, metric and by how much, when none did.
        """
        from compress.judge import Limits
        from compress.trial import Trial, write_attempts

        limits = Limits(self.max_drop, self.max_map_drop, self.max_answer_drop, self.alpha)
        trial = Trial(draft, limits, self.golden)
        attempts: list[Attempt] = []
        for what, made in self._candidates(draft, trial, attempts):
            attempt = trial.attempt(what, made.need("student", "gate"), len(attempts))
            attempts.append(attempt)
            write_attempts(attempts, draft.folder)
            if not attempt.failures:
                return _accepted(made, trial, attempt, self.unknown)
        raise GateFailed(f"{_refusal(attempts, draft.folder)} Train longer, or {ALLOW}")

    def _candidates(self, draft: Draft, trial: Trial, attempts: list[Attempt]) -> Iterator[tuple[str, Draft]]:
        """What to try next as the draft's student, each made when it is asked for."""
        student: ModelFiles = draft.need("student", "gate")
        if self.always_qat:
            yield "retrained", self._retrain(draft, draft.folder)
            return
        yield "as quantized", draft
        self._acquit(student, trial, attempts, draft.folder)
        if self.restore:
            ranked = rank(student, trial, attempts[0])
            for count in counts(self.restore, len(ranked)):
                what = ", ".join(f"{tower} {name}" for tower, name in ranked[:count])
                mended = restored(student, ranked[:count], trial.folder(len(attempts)))
                what = f"restored {count} {'layer' if count == 1 else 'layers'}: {what}"
                yield what, dataclasses.replace(draft, student=mended)
        if self.qat_epochs:
            yield "retrained", self._retrain(draft, draft.folder)

    def _acquit(self, student: ModelFiles, trial: Trial, attempts: list[Attempt], folder: Path) -> None:
        """Raises GateFailed when the float student fails: then there is nothing to mend here."""
        from compress.trial import write_attempts

        graphs = {tower: {"fp32": paths["fp32"]} for tower, paths in student.graphs.items()}
        in_float = trial.attempt("in float", dataclasses.replace(student, graphs=graphs), len(attempts), "fp32")
        attempts.append(in_float)
        write_attempts(attempts, folder)
        if in_float.failures:
            raise GateFailed(
                f"{_refusal(attempts, folder)} Quantization is not to blame: train longer (--set distill.epochs=...), "
                f"prune less, or {ALLOW}"
            )

    def _retrain(self, draft: Draft, folder: Path) -> Draft:
        from compress.qat import retrain

        # Its checkpoint must lie where the driver keeps those of a step that was killed.
        return retrain(draft, folder, self.qat_epochs, self.qat_lr)


def counts(most: int, layers: int) -> list[int]:
    """How many layers to put back, one attempt after the other: 1, 2, 4, ... and the most that may be."""
    last = min(most, layers)
    found = [1 << power for power in range(last.bit_length()) if 1 << power < last]
    return [*found, last] if last else []


def rank(student: ModelFiles, trial: Trial, failed: Attempt) -> list[Layer]:
    """The quantized layers that are better in float, most helpful first, of the towers to blame for what `failed`.

    Measured on the images that were lost: over all images, a layer that ruins one class need not be the worst.
    """
    import numpy as np
    import onnx

    from compress.feeds import eval_rows
    from compress.progress import bar
    from compress.restore import quantized_layers, sensitivity

    images = failed.lost if len(failed.lost) >= FEWEST else range(len(trial.val.images))
    chosen = np.unique(np.linspace(0, len(images) - 1, MOST).astype(int))
    # The last engine is ONNX Runtime where that is here: it opens a graph in a third of the time.
    target = trial.engines[-1]
    rows = eval_rows(student, trial.val, [images[place] for place in chosen], target)
    found: list[tuple[float, Layer]] = []
    for tower in (each for each in failed.towers if each in rows):
        quantized, source = (onnx.load(str(student.graphs[tower][variant])) for variant in ("int8", "fp32"))
        with bar(f"gate: layers of {tower}", len(quantized_layers(quantized))) as tick:
            gains = sensitivity(quantized, source, rows[tower], target, tick)
        found += [(gain, (tower, name)) for name, gain in gains if gain > 0]
    return [layer for _, layer in sorted(found, key=lambda item: -item[0])]


def restored(student: ModelFiles, layers: Sequence[Layer], folder: Path) -> ModelFiles:
    """The student with these layers in float; graphs that changed are written into `folder`."""
    import onnx

    from compress.export import save_graph
    from compress.restore import put_back

    graphs = {tower: dict(paths) for tower, paths in student.graphs.items()}
    for tower, paths in graphs.items():
        if names := [name for of, name in layers if of == tower]:
            quantized, source = (onnx.load(str(paths[variant])) for variant in ("int8", "fp32"))
            paths["int8"] = folder / f"{tower}.int8.onnx"
            save_graph(put_back(quantized, source, names), paths["int8"])
    return dataclasses.replace(student, graphs=graphs)


def _accepted(draft: Draft, trial: Trial, attempt: Attempt, unknown: float) -> Draft:
    metrics: dict[str, float | int | str] = {"n": attempt.judgements[0].n, "attempt": attempt.what}
    for judged in attempt.judgements:
        metrics |= {f"{judged.on}.{name}": value for name, value in judged.metrics().items()}
    bundles = {"teacher": trial.teacher, "student": attempt.bundle}
    if unknown:
        metrics |= {f"{who}_threshold": trial.calibrate(path, unknown) for who, path in bundles.items()}
    return dataclasses.replace(draft, student=attempt.model, bundles=bundles).with_metrics("gate", **metrics)


def _refusal(attempts: Sequence[Attempt], folder: Path) -> str:
    """Why every attempt was refused, and where all that was made lies."""
    first, *others = attempts
    n = next((judged.n for each in attempts for judged in each.judgements), 0)
    # Which layers were restored, attempts.json says.
    then = "".join(f". Then {each.what.partition(':')[0]}: {_quoted(each.failures)}" for each in others)
    # The driver keeps a refused step's folder under this name.
    kept = folder.with_suffix(".refused") if folder.suffix == ".tmp" else folder
    return (
        f"the int8 student is refused on {n} validation images: {_quoted(first.failures)}{then}. Bundles and figures "
        f"of every attempt are in {kept}."
    )


def _quoted(failures: Sequence[str]) -> str:
    more = f"; and {len(failures) - SHOWN} more" if len(failures) > SHOWN else ""
    return ("; ".join(failures[:SHOWN]) + more) or "passed"
