"""The label bank: what `classify` chooses from, editable at run time.

A label is a vector: the normalised mean of its prompts' embeddings (CLIP's prompt ensembling, Radford et al. 2021,
section 3.1.4). Vectors are kept, so the cost of a frame does not depend on how many labels there are, and the text
tower is opened only when a phrase comes that was never seen.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from runtimes import FeedError
from sdk.bundle import Bundle
from sdk.golden import unit_rows
from sdk.label_set import LabelSet

EmbedTexts = Callable[[Sequence[str]], tuple[NDArray[np.float32], tuple[int, ...]]]
_REMEMBERED = 4096  # vectors of ad-hoc labels kept, the least recently used out


class LabelBank:
    """Labels of one student. An edit swaps a whole new set in: frames in other threads see the old or the new one."""

    def __init__(self, bundle: Bundle, embed_texts: EmbedTexts) -> None:
        spec = bundle.manifest.labels
        items = spec.items if spec else ()
        self._embed = embed_texts
        self._templates = bundle.manifest.text.templates if bundle.manifest.text else ()
        self._lock = threading.RLock()
        self._group_of = {item.label: item.group for item in items}
        self._current = LabelSet(
            tuple(item.label for item in items),
            bundle.label_vectors,
            tuple(item.unknown for item in items),
            tuple(item.group for item in items),
        )
        self._last = (self._current, self._current)  # the bank, and what was last asked for while it was so
        self._seen: OrderedDict[str, tuple[NDArray[np.float32], int]] = OrderedDict(
            (name, (vector, unknown))
            for name, vector, unknown in zip(
                self._current.names, self._current.vectors, self._current.unknown, strict=True
            )
        )

    def list(self) -> list[str]:
        """The labels in bank order."""
        return list(self._current.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._current.names)

    def __len__(self) -> int:
        return len(self._current.names)

    def __contains__(self, label: object) -> bool:
        return label in self._current.names

    @property
    def current(self) -> LabelSet:
        """The bank as one consistent set."""
        return self._current

    def add(self, label: str, prompts: Sequence[str] | None = None, group: str = "") -> None:
        """Add a label at the end. `prompts` default to the bundle's templates around the label, `group` to the group
        that the bundle gives a label of this name, if any.

        Raises FeedError for a label that is there already or empty, Unavailable without a text tower.
        """
        with self._lock:
            now = self._current
            if label in now.names:
                raise FeedError(f"the label {label!r} is in the bank already; remove it first, or use replace")
            _check_names((label,))
            if not isinstance(group, str) or (group and not group.strip()):
                raise FeedError(f"the group of {label!r} must be a text, or '' for none, but {group!r} came")
            new = self._named((label,)) if prompts is None else self._embedded({label: prompts})
            self._current = now.joined(dataclasses.replace(new, groups=(group,)) if group else new)

    def remove(self, label: str) -> None:
        """Remove a label. Raises FeedError when it is not there."""
        with self._lock:
            if label not in self._current.names:
                raise FeedError(f"the label {label!r} is not in the bank; it holds: {_some(self._current.names)}")
            keep = [i for i, name in enumerate(self._current.names) if name != label]
            self._current = self._current.rows(keep)

    def replace(self, labels: Sequence[str] | Mapping[str, Sequence[str]]) -> None:
        """Put other labels in the bank: names, or a mapping of names to prompts. All or nothing.

        Prompts hold while the label is in the bank; replaced by its name alone it means what the bundle says again.
        A label keeps the group that it has in the bank; one that comes from outside has that of the bundle, if any.
        Raises FeedError for no labels, one given twice, or an empty one.
        """
        with self._lock:
            new = self._embedded(labels) if isinstance(labels, Mapping) else self._named(_check_names(labels))
            had = dict(zip(self._current.names, self._current.groups, strict=True))
            groups = tuple(had.get(name, group) for name, group in zip(new.names, new.groups, strict=True))
            self._current = dataclasses.replace(new, groups=groups)

    def resolve(self, labels: Sequence[str]) -> LabelSet:
        """Vectors of `labels`: those in the bank as the bank has them, others by name, embedding only what is new.

        Raises FeedError for no labels, or one given twice.
        """
        bank, last = self._last  # an app asks for the same labels with every frame
        if bank is self._current and isinstance(labels, list | tuple) and labels and tuple(labels) == last.names:
            return last
        names = _check_names(labels)
        with self._lock:
            bank = self._current
            place = {name: index for index, name in enumerate(bank.names)}
            others = tuple(name for name in names if name not in place)
            both = bank.joined(self._named(others)) if others else bank
            at = {name: index for index, name in enumerate(both.names)}
            found = both.rows([at[name] for name in names])
            self._last = (bank, found)
            return found

    def _named(self, names: tuple[str, ...]) -> LabelSet:
        """Labels by name alone: the bundle's own vector, or the templates around the name. Remembered."""
        fresh = [name for name in names if name not in self._seen]
        if fresh:
            learnt = self._embedded({name: self._prompts(name) for name in fresh})
            for name, vector, unknown in zip(learnt.names, learnt.vectors, learnt.unknown, strict=True):
                self._seen[name] = (vector, unknown)
        found = [self._seen[name] for name in names]
        for name in names:
            self._seen.move_to_end(name)
        self._forget(keep={*self._current.names, *names})
        vectors = np.stack([vector for vector, _ in found])
        return LabelSet(names, vectors, tuple(count for _, count in found), self._groups(names))

    def _forget(self, keep: Collection[str]) -> None:
        """Drop the least recently used beyond the limit; never `keep`: without a text tower they would be lost."""
        excess = len(self._seen) - max(_REMEMBERED, len(keep))
        if excess > 0:
            for name in [name for name in self._seen if name not in keep][:excess]:
                del self._seen[name]

    def _groups(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """What the bundle says of these labels, "" of those it does not know."""
        return tuple(self._group_of.get(name, "") for name in names)

    def _prompts(self, label: str) -> tuple[str, ...]:
        # str.replace, not str.format: a template is data from outside and must not reach into attributes.
        return tuple(template.replace("{}", label) for template in self._templates) or (label,)

    def _embedded(self, prompts_of: Mapping[str, Iterable[str]]) -> LabelSet:
        """Labels by their prompts. Not remembered here: a name alone must go on to mean the bundle's own vector."""
        names = _check_names(prompts_of)
        prompts = [_check_prompts(name, prompts_of[name]) for name in names]
        vectors, unknown = self._embed([prompt for each in prompts for prompt in each])
        ends = np.cumsum([len(each) for each in prompts])
        rows = [slice(end - len(each), end) for each, end in zip(prompts, ends, strict=True)]
        means = np.stack([vectors[row].mean(axis=0) for row in rows])
        return LabelSet(names, unit_rows(means), tuple(sum(unknown[row]) for row in rows), self._groups(names))


def _check_prompts(label: str, prompts: object) -> tuple[str, ...]:
    texts = tuple(prompts) if isinstance(prompts, Iterable) and not isinstance(prompts, str | bytes) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        raise FeedError(f"the prompts of {label!r} must be a list of at least one text, but {prompts!r:.60} came")
    return texts


def _check_names(labels: Iterable[str]) -> tuple[str, ...]:
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise FeedError(f"labels must be a list of str, but {type(labels).__name__} came; write [label]")
    names = tuple(labels)
    if not names:
        raise FeedError("no labels were given; give at least one, or fill the bank with labels.replace([...])")
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise FeedError(f"a label must be a text that is not empty, but {name!r} came")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FeedError(f"the label {twice!r} was given twice; give each label once")
    return names


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"
