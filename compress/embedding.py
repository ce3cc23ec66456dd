"""What a teacher says of images, texts and questions, row by row into DIR/.work/store, where it outlives a killed run
and whatever a later run changes (compress/rows.py)."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from compress.data import Corpus
from compress.disk import check_space
from compress.draft import Draft, ModelFiles
from compress.encode import Asker, encode_frames, encode_texts
from compress.models.dual_encoder import DualEncoder, load_model
from compress.parity import check_finite
from compress.prepared import drop_others, prepared, unread
from compress.progress import bar
from compress.row_keys import pixel_keys, teacher_key
from compress.rows import Keys, Rows, keys_of
from compress.views import Views, frames_of, view_seed, views
from runtimes import RecipeError

if TYPE_CHECKING:
    from compress.steps.embed import Embed

ROWS = ".work/store"
TEXTS = 128  # in a batch


class Embedding:
    """`rows`: the arrays of a store by name (see compress/store.py), filled by the methods. `made`: how many vectors
    the teacher made now; `kept`: how many were there.

    What is there is known by its content: of an image by the pixels that the teacher sees, of a text and a question by
    their wording; with all that the teacher is, the draw of the view, our code and the versions that decide.
    """

    def __init__(self, asked: "Embed", teacher: ModelFiles, corpus: Corpus, draft: Draft) -> None:
        self._asked, self._teacher, self._corpus, self._draft = asked, teacher, corpus, draft
        self._normal = (teacher.image.mean, teacher.image.std)
        self._made_by = teacher_key(teacher, draft.device)
        self.rows: dict[str, Rows] = {}
        self._frames: list[NDArray[np.uint8]] = []  # what was read from the images
        self.made = self.kept = 0

    def fill(self, texts: Sequence[str]) -> None:
        """Embed whatever is not there yet. Raises RecipeError, naming the sample, for an output that is not finite, and
        for too little disk before anything is read."""
        check_space(self._draft.out, self._mbytes(), "what [embed] reads and stores")
        self._train()
        self._val()
        self._texts(texts)

    def drop_others(self) -> None:
        """Remove what runs before have left of other images, and what they embedded of them."""
        for rows in self.rows.values():
            rows.drop_others()
        drop_others(self._draft.out, self._frames)

    def _mbytes(self) -> float:
        """Of frames that are not there yet, and of the rows of all images."""
        asked, spec, (train, val) = self._asked, self._teacher.image, (self._corpus.train, self._corpus.val)
        arrays = {(train.images, how) for how in frames_of((spec, spec), asked.augment)}
        arrays.add((val.images, (spec.size, spec.resize, spec.crop)))
        frames = sum(unread(images, how, self._draft.out) for images, how in arrays)
        rows = (asked.views * len(train.images) + len(val.images)) * 4 * self._teacher.dim
        return (frames + rows) / 1e6

    @cached_property
    def _model(self) -> DualEncoder:
        """Read when it is needed: not if nothing is to be made."""
        return load_model(self._teacher)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self._teacher.text.tokenizer))

    def _array(self, name: str, keys: Keys, shape: tuple[int, ...], dtype: str = "float32") -> Rows:
        self.rows[name] = Rows(self._draft.out / ROWS, name, shape, dtype, keys)
        return self.rows[name]

    def _train(self) -> None:
        """Vectors of the train images in all views, and answers to the questions about them."""
        asked, corpus, dim = self._asked, self._corpus, self._teacher.dim
        how = (asked.augment, asked.train_size, view_seed(self._draft.seed))
        spec = self._teacher.image
        seen = views(corpus.train.images, (spec, spec), how, self._draft.out, "embed: read train")
        self._frames += [seen.plain, seen.frames]
        keys = self._view_keys(seen)
        count = len(corpus.train.images)
        train = self._array("train", np.concatenate(keys), (asked.views, count, dim), asked.dtype)
        todo = train.missing.reshape(asked.views, count).copy()
        answers = self._answers(keys)
        if answers is not None:
            silent, question = np.nonzero(answers.missing.reshape(asked.views, -1))
            owners = np.array([each.image for each in corpus.train.questions], np.int64)
            todo[silent, owners[question]] = True
        self._count(todo)
        for view, chosen in _batches(todo, asked.batch, "embed: teacher"):
            frames = seen(chosen, view)
            vectors = encode_frames(self._model, frames, self._normal, asked.batch).numpy(force=True)
            check_finite(vectors, [corpus.train.images[at] for at in chosen])
            if answers is not None:
                self._ask(answers, frames, chosen, view)
            train.write(view * count + chosen, vectors)

    def _view_keys(self, seen: Views) -> list[Keys]:
        """Of the train images in each view."""
        plain = pixel_keys(seen.plain)
        frames = plain if seen.frames is seen.plain or self._asked.views == 1 else pixel_keys(seen.frames)
        about = [dataclasses.asdict(seen.augment), seen.varied, seen.seed]
        others = (self._keys(json.dumps([*about, view]).encode(), frames) for view in range(1, self._asked.views))
        return [self._keys(b"", plain), *others]

    def _answers(self, keys: Sequence[Keys]) -> Rows | None:
        """None if the teacher answers no questions. `keys`: of the train images, by view."""
        fusion, questions = self._teacher.fusion, self._corpus.train.questions
        if fusion is None:
            return None
        about = (own[each.image].tobytes() + each.text.encode() for own in keys for each in questions)
        shape = (len(keys), len(questions), len(fusion.answers))
        return self._array("answers", self._keys(b"question", about), shape, self._asked.dtype)

    @cached_property
    def _asker(self) -> Asker:
        return Asker(self._model, self._teacher, self._corpus.train.questions)

    def _ask(self, answers: Rows, frames: NDArray[np.uint8], chosen: NDArray[np.int64], view: int) -> None:
        asked, logits = self._asker(frames, chosen)
        said, questions, dtype = logits.numpy(force=True), self._corpus.train.questions, self._asked.dtype
        check_finite(said, [questions[at].text for at in asked])
        most = np.abs(said).max(initial=0)
        if most > np.finfo(dtype).max:
            raise RecipeError(f"embed.dtype is {dtype}, and the teacher answers with {most:g}; set it to float32")
        answers.write(view * len(questions) + asked, said)

    def _val(self) -> None:
        """Vectors of the validation images."""
        spec, images, batch = self._teacher.image, self._corpus.val.images, self._asked.batch
        frames = prepared(images, spec.size, self._draft.out, "embed: read val", spec.resize, spec.crop)
        self._frames.append(frames)
        array = self._array("val", self._keys(b"", pixel_keys(frames)), (len(images), self._teacher.dim))

        def encode(chosen: NDArray[np.int64]) -> Tensor:
            return encode_frames(self._model, frames[chosen], self._normal, batch)

        self._plainly(array, batch, encode, images)

    def _texts(self, texts: Sequence[str]) -> None:
        """Vectors of the texts."""
        array = self._array(
            "texts", self._keys(b"", (text.encode() for text in texts)), (len(texts), self._teacher.dim)
        )

        def encode(chosen: NDArray[np.int64]) -> Tensor:
            return encode_texts(self._model, self._tokenizer, [texts[at] for at in chosen], TEXTS)

        self._plainly(array, TEXTS, encode, texts)

    def _plainly(
        self, array: Rows, batch: int, encode: Callable[[NDArray[np.int64]], Tensor], names: Sequence[object]
    ) -> None:
        """Fill an array without views."""
        todo = array.missing[None].copy()
        self._count(todo)
        for _, chosen in _batches(todo, batch, f"embed: {array.name}"):
            vectors = encode(chosen).numpy(force=True)
            check_finite(vectors, [names[at] for at in chosen])
            array.write(chosen, vectors)

    def _count(self, todo: NDArray[np.bool_]) -> None:
        self.made += int(todo.sum())
        self.kept += int((~todo).sum())

    def _keys(self, also: bytes, rows: Any) -> Keys:
        return keys_of(self._made_by + also, rows)


def _batches(todo: NDArray[np.bool_], batch: int, title: str) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(view, rows) for the rows that `todo`, (views, N), marks: `batch` neighbours, or those of them that are left.

    Whatever is left, a batch begins at a multiple of `batch`: what a killed run had not come to is made in the company
    in which it would have been made, and so comes out the same to the last bit.
    """
    starts = [(view, at) for view in range(len(todo)) for at in range(0, todo.shape[1], batch)]
    left = [(view, at) for view, at in starts if todo[view, at : at + batch].any()]
    with bar(title, len(starts), len(starts) - len(left)) as tick:
        for view, at in left:
            yield view, at + np.flatnonzero(todo[view, at : at + batch])
            tick(f"view {view}")
