"""Starting a model from another: what fits is loaded, rows follow their names, the rest stays new.

Tensors are matched by place: models of one class place by place, whatever their depth and direction; of two classes
the token vectors of part ``embedding`` and the recurrent layers of part ``encoder`` alone.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnnzoo.cells.wrappers import base_cell
from rnnzoo.layers import Recurrent, WordEmbedding
from rnnzoo.models.base import ZooModel
from rnnzoo.text.vocabulary import ABSENT, Vocabulary

NOT_THERE = "not in the source"
DIRECTIONS = ("forward", "backward")
SHARED_PARTS: tuple[tuple[str, type[nn.Module]], ...] = (("embedding", WordEmbedding), ("encoder", Recurrent))
Axes = Sequence[Vocabulary | None]


class Carried(NamedTuple):
    """What became of a tensor, in numbers."""

    place: str
    loaded: int = 0  # copied as they stood
    remapped: int = 0  # copied to the row of the same name
    new: int = 0
    why: str = ""  # why some are new


class WarmStart(NamedTuple):
    """What a model took from another."""

    tensors: tuple[Carried, ...]
    unused: tuple[str, ...]  # places of the source that found no use

    @property
    def taken(self) -> int:
        """Numbers that the source gave."""
        return sum(each.loaded + each.remapped for each in self.tensors)

    @property
    def new(self) -> int:
        """Numbers that it did not give."""
        return sum(each.new for each in self.tensors)

    def table(self) -> str:
        """Return an aligned table: how many numbers of each module were loaded, remapped and are new, and why.

        Modules inside another share a row if the same is to be said of all.
        """
        rows = [["module", "loaded", "remapped", "new", "why"]]
        for module, tensors in gathered(self.tensors):
            counts = [[each.loaded, each.remapped, each.new] for each in tensors]
            rows.append([module, *(f"{sum(column):,}" for column in zip(*counts, strict=True)), reasons(tensors)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for module, *numbers, why in rows:
            aligned = [number.rjust(width) for number, width in zip(numbers, widths[1:4], strict=True)]
            lines.append("  ".join([module.ljust(widths[0]), *aligned, why]).rstrip())
        if self.unused:
            modules = Counter(split_place(place)[0] for place in self.unused)
            listed = (f"{module} ({count} tensor{'s' * (count > 1)})" for module, count in modules.items())
            lines.append(f"not used of the source: {', '.join(listed)}")
        return "\n".join(lines)


def start(model: ZooModel, source: ZooModel) -> WarmStart:
    """Copy into `model` what fits of `source`.

    A tensor is loaded where place, shape and, in recurrent layers, the cell are the same. Where an axis stands for a
    vocabulary (of tokens or labels), its rows follow their names; new names start from the mean of the ordinary rows
    that were loaded, special tokens left out. A tensor that the model uses in several places (tied weights, shared
    vectors) takes each row from the first of them that knows it.
    """
    theirs = {place: name for name, place in places(source).items()}
    values, axes = source.state_dict(), (model.vocabularies(), source.vocabularies())
    prefixes, cells = shared_prefixes(model, source), (recurrent_layers(model), recurrent_layers(source))
    carried, used = [], set()
    for tensor, own in grouped(model):
        found: list[Fit | str] = []
        for place in own:
            origin = renamed(place, prefixes)
            name = theirs.get(origin) if origin is not None else None
            if why := other_cell(place, origin, *cells):
                found.append(why)
            elif origin is None or name is None:
                found.append(absence(origin, theirs))
            else:
                found.append(carry(tensor, values[name], axes[0].get(place, ()), axes[1].get(origin, ())))
                if isinstance(found[-1], Fit):
                    used.add(values[name].data_ptr())
        carried.append(merge(tensor, own[0], found))
    unused = [place for place, name in theirs.items() if values[name].data_ptr() not in used]
    return WarmStart(tuple(carried), tuple(unused))


class Fit(NamedTuple):
    """What a tensor of the source gives for one of the model."""

    values: Tensor  # in the shape of the model's
    known: Tensor  # of that shape, bool: what stood in the source
    moved: bool  # rows changed their places
    why: str  # what is missing


def carry(target: Tensor, source: Tensor, own: Axes, theirs: Axes) -> Fit | str:
    """Return the numbers of `source` in the shape of `target`, axis by axis: rows by name, or as they stand.

    If they do not fit, return why.

    >>> fit = carry(torch.zeros(4), torch.tensor([0.0, 1.0, 2.0]), *(
    ...     [Vocabulary("labels", tuple(names))] for names in ("cbxa", "abc")))
    >>> fit.values, fit.known, fit.why
    (tensor([2., 1., 1., 0.]), tensor([ True,  True, False,  True]), '3 of 4 labels known')
    """
    axes = list(itertools.zip_longest(own, theirs, range(target.dim())))
    fits = target.dim() == source.dim() and all(
        (mine is None) == (other is None) and (mine is not None or target.shape[axis] == source.shape[axis])
        for mine, other, axis in axes
    )
    if not fits:
        return f"{shape(target)} numbers, in the source {shape(source)}"
    values, known, moved, why = source, torch.ones_like(target, dtype=torch.bool), False, ""
    for vocabulary, other, axis in axes:
        if vocabulary is None or other is None:
            continue
        rows = torch.tensor(vocabulary.places_in(other), dtype=torch.int64)  # [V]
        there = rows != ABSENT
        kind = vocabulary.kind if vocabulary.kind == other.kind else f"{vocabulary.kind}, in the source {other.kind}"
        if not bool(there.any()):
            return f"no {kind} in common" if vocabulary.kind == other.kind else kind
        if not bool(there.all()):
            why = f"{int(there.sum()):,} of {len(rows):,} {kind} known"
        moved |= len(vocabulary) != len(other) or bool((rows != torch.arange(len(rows))).any())
        ordinary = torch.tensor([row != ABSENT and other.is_ordinary(row) for row in rows.tolist()])
        mean = values.index_select(axis, rows[ordinary]).mean(axis, keepdim=True)
        view = [-1 if each == axis else 1 for each in range(target.dim())]
        values = torch.where(there.view(view), values.index_select(axis, rows.clamp(min=0)), mean)
        known = known & there.view(view)
    return Fit(values, known, moved, why)


def merge(tensor: Tensor, place: str, found: Sequence[Fit | str]) -> Carried:
    """Write the numbers of the first fit, those that it lacks from the next, into a tensor; tell what was done."""
    fits = [fit for fit in found if isinstance(fit, Fit)]
    if not fits:
        return Carried(place, new=tensor.numel(), why=str(found[0]))
    values, known, moved, why = fits[0]
    for fit in fits[1:]:
        if not bool(known.all()):
            values, known = torch.where(known, values, fit.values), known | fit.known
            moved |= fit.moved
            why = "" if bool(known.all()) else why
    with torch.no_grad():
        tensor.copy_(values)
    count = int(known.sum())
    return Carried(place, 0 if moved else count, count if moved else 0, tensor.numel() - count, why)


def other_vocabulary(model: ZooModel, weights: Mapping[str, Tensor]) -> tuple[str, str, int, int] | None:
    """Return the first of `weights` whose vocabulary has another size than the model's; None if there is none.

    Returns:
        Its name, the kind of vocabulary, and its size in the model and in the weights.
    """
    axes = model.vocabularies()
    for name, place in places(model).items():
        for axis, vocabulary in enumerate(axes.get(place, ())):
            if vocabulary is not None and name in weights and weights[name].dim() > axis:
                size = weights[name].shape[axis]
                if size != len(vocabulary):
                    return name, vocabulary.kind, len(vocabulary), size
    return None


def places(model: nn.Module) -> dict[str, str]:
    """Return for each tensor of a model's state its place: its name, but cells are named by layer and direction.

    So the place is the same in models of another depth or direction, and whatever wrappers are around the cell.
    """
    found = {name: name for name in model.state_dict()}
    for prefix, layers in recurrent_layers(model).items():
        fields = len(layers.initial) // len(layers.cells)
        for number, cell in enumerate(layers.cells):
            layer, direction = divmod(number, 1 + layers.bidirectional)
            there = f"{prefix}.layer {layer} {DIRECTIONS[direction]}"
            inside = next(name for name, module in cell.named_modules() if module is base_cell(cell))  # type: ignore[arg-type]
            start = f"{prefix}.cells.{number}." + (f"{inside}." if inside else "")
            for name in found:
                if name.startswith(start):
                    found[name] = f"{there}.{name.removeprefix(start)}"
            for field in range(fields):
                found[f"{prefix}.initial.{number * fields + field}"] = f"{there}.initial_{field}"
    return found


def recurrent_layers(model: nn.Module) -> dict[str, Recurrent]:
    """Return the stacks of recurrent layers in a model, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Recurrent)}


def grouped(model: nn.Module) -> list[tuple[Tensor, list[str]]]:
    """Return the tensors of a model's state, each once, with the places where it is used."""
    found: dict[int, tuple[Tensor, list[str]]] = {}
    names = places(model)
    for name, tensor in model.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), (tensor, []))[1].append(names[name])
    return list(found.values())


def shared_prefixes(model: ZooModel, source: ZooModel) -> list[tuple[str, str]]:
    """Return the beginnings of places in a model with those in the source that mean the same."""
    if type(model) is type(source):
        return [("", "")]
    found = []
    for part, kind in SHARED_PARTS:
        prefixes = [first_in_part(each, part, kind) for each in (model, source)]
        if None not in prefixes:
            found.append((f"{prefixes[0]}.", f"{prefixes[1]}."))
    return found


def first_in_part(model: ZooModel, part: str, kind: type[nn.Module]) -> str | None:
    """Return the name of the first module of a kind in a part, None if there is none."""
    names = {id(module): name for name, module in model.named_modules()}
    return next((names[id(module)] for module in model.parts().get(part, ()) if isinstance(module, kind)), None)


def renamed(place: str, prefixes: Iterable[tuple[str, str]]) -> str | None:
    """Return the place in the source of a place in the model, None if models of the two classes do not share it."""
    return next((theirs + place.removeprefix(own) for own, theirs in prefixes if place.startswith(own)), None)


def absence(origin: str | None, theirs: Mapping[str, str]) -> str:
    """Return why the source has no tensor for a place."""
    forward, backward = (f" {direction}." for direction in DIRECTIONS)
    if origin is not None and backward in origin and origin.replace(backward, forward) in theirs:
        return "the source has no backward direction"
    return NOT_THERE


def other_cell(place: str, origin: str | None, own: Mapping[str, Recurrent], theirs: Mapping[str, Recurrent]) -> str:
    """Return how the cell that a place belongs to differs from the source's; empty if not, or if there is no cell."""
    for prefix, layers in own.items():
        start = f"{prefix}.layer "
        if origin is not None and place.startswith(start) and (stem := origin.partition(".layer ")[0]) in theirs:
            other = theirs[stem].cell_name
            return "" if other == layers.cell_name else f"cell {layers.cell_name}, in the source {other}"
    return ""


def split_place(place: str) -> tuple[str, str]:
    """Return the module and the name inside it of a place.

    >>> split_place("recurrent.layer 0 forward.bias")
    ('recurrent.layer 0 forward', 'bias')
    """
    module, _, name = place.rpartition(".")
    return module, name


def gathered(tensors: Sequence[Carried]) -> list[tuple[str, list[Carried]]]:
    """Return tensors by the first two parts of their places if the same holds for all of these, else by module."""
    found: list[tuple[str, list[Carried]]] = []
    for stem, group in itertools.groupby(tensors, lambda each: ".".join(split_place(each.place)[0].split(".")[:2])):
        inside = list(group)
        if len({(each.why, each.new > 0) for each in inside}) == 1:
            found.append((stem, inside))
            continue
        modules = itertools.groupby(inside, lambda each: split_place(each.place)[0])
        found += [(module, list(those)) for module, those in modules]
    return found


def shape(tensor: Tensor) -> str:
    """Return the sizes of a tensor for people."""
    return "×".join(map(str, tensor.shape)) or "1"


def reasons(tensors: Sequence[Carried]) -> str:
    """Return why some of a module's numbers are new, with the names of its tensors where that holds for a few only."""
    found: dict[str, list[str]] = {}
    for each in tensors:
        found.setdefault(each.why, []).append(split_place(each.place)[1])
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in found.items() if why)
