"""A trained model as a folder: JSON and safetensors, nothing that runs code when it is read.

``config.json`` (model class, its arguments, versions, checksums), ``processor.json`` (tokenizers, labels,
normalisation) and ``model.safetensors`` (weights).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors

from rnnzoo.cells import CELLS
from rnnzoo.checkpoints import BEST, LAST, StoredModel, is_unfinished, newest_readable, stored_model
from rnnzoo.checkpoints import CONFIG as RUN_CONFIG
from rnnzoo.documents import read_json
from rnnzoo.errors import InputError
from rnnzoo.files import atomic_folder, write_atomically
from rnnzoo.limits import check_limit
from rnnzoo.models import MODELS
from rnnzoo.models.base import HOW_TRAINED, ZooModel
from rnnzoo.models.transfer import NOT_THERE, WarmStart, other_vocabulary, recurrent_layers, start
from rnnzoo.processors.base import Processor, load_processor
from rnnzoo.recipes import read_recipe
from rnnzoo.schema import check_arguments, check_value, type_hints
from rnnzoo.version import __version__
from rnnzoo.weights import check_finite, check_tensors, no_larger_than, read_header, read_weights

FORMAT = 1
CONFIG, PROCESSOR, WEIGHTS = "config.json", "processor.json", "model.safetensors"
CONFIG_TYPES: dict[str, Any] = {  # key of config.json → type
    "model": str,
    "arguments": dict[str, Any],
    "own_cells": dict[str, str] | None,
    "sha256": dict[str, str],
}
REASONS_NAMED = 3  # why nothing of a model fits


def save(model: ZooModel, folder: str | Path, *, facts: dict[str, Any] | None = None, replace: bool = False) -> Path:
    """Write a model to `folder`, whole or not at all.

    Args:
        model: the model.
        folder: a new folder.
        facts: further JSON values for ``config.json``, such as where the model comes from.
        replace: take the place of a model that is there, which stays until the new one is whole.

    Raises:
        InputError: if the folder exists and no model is to be replaced in it.
    """
    folder = Path(folder)
    if folder.exists() and not (replace and (folder / CONFIG).is_file()):
        raise InputError(str(folder), expected="a new folder", got="one that exists", fix="remove it or take another")
    arguments = dict(model.hparams)
    processor = arguments.pop("processor")
    first = first_names(model)
    weights = {
        name: value.detach().cpu().contiguous() for name, value in model.state_dict().items() if first[name] == name
    }
    with atomic_folder(folder) as temporary:
        write_atomically(temporary / WEIGHTS, to_safetensors(weights, metadata={"format": "pt"}))
        write_atomically(temporary / PROCESSOR, json.dumps(processor, ensure_ascii=False))
        config = {
            "format": FORMAT,
            "rnnzoo": __version__,
            "torch": torch.__version__,
            "model": type(model).__name__,
            "arguments": arguments,
            "own_cells": own_cells(model),
            "sha256": {name: sha256(temporary / name) for name in (PROCESSOR, WEIGHTS)},
            **(facts or {}),
        }
        write_atomically(temporary / CONFIG, json.dumps(config, ensure_ascii=False, indent=2) + "\n")
    return folder


def load(path: str | Path, *, note: Callable[[str], None] = warnings.warn) -> ZooModel:
    """Load a model from its folder, or from the run folder that holds it, ready to answer raw input.

    The folder may be from anywhere: it runs no code, and what it describes is compared with its weights before memory
    is taken for it. Of a run that was interrupted or still runs, the best checkpoint is taken, or the last.

    Args:
        path: the folder.
        note: is called with a sentence if the weights are those of a checkpoint.

    Raises:
        InputError: if a file is missing, cut short or changed, was written by a newer version, or holds what no saved
            model does.
    """
    if is_unfinished(Path(path)):
        stored = stored_model(Path(path))
        note(stored.note)
        return load_stored(stored)
    folder = model_folder(path)
    config = read_config(folder)
    for name in (PROCESSOR, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(
                str(folder / name), expected="a file of the model folder", got="nothing", fix="copy the folder again"
            )
    header = read_header(folder / WEIGHTS)
    if sha256(folder / WEIGHTS) != config["sha256"].get(WEIGHTS):
        raise changed(folder / WEIGHTS)
    check_limit("PROCESSOR_BYTES", str(folder / PROCESSOR), (folder / PROCESSOR).stat().st_size)
    intact = sha256(folder / PROCESSOR) == config["sha256"].get(PROCESSOR)
    try:
        processor = read_processor(folder)
    except InputError as error:
        if intact:
            raise
        raise changed(folder / PROCESSOR) from error
    draft = build_draft(folder / CONFIG, config, processor, header)
    check_vocabulary(folder, draft, header)
    if not intact:
        raise changed(folder / PROCESSOR)
    saved = first_names(draft)
    wanted = {name: value for name, value in draft.state_dict().items() if saved[name] == name}
    check_tensors(folder / WEIGHTS, wanted, header, config["model"])
    weights = read_weights(folder / WEIGHTS)
    model = build(folder / CONFIG, config, processor)
    model.load_state_dict(weights | {name: weights[first] for name, first in saved.items()})
    return model.eval()


def load_stored(stored: StoredModel) -> ZooModel:
    """Return the model of a checkpoint, after the checks that a model folder gets."""
    with naming(stored.path, "a processor that rnnzoo wrote"):
        processor = load_processor(stored.processor)
    draft = build_draft(stored.path, stored.config, processor, stored.weights)
    check_tensors(stored.path, draft.state_dict(), stored.weights, stored.config["model"])
    check_finite(stored.path, stored.weights)
    model = build(stored.path, stored.config, processor)
    model.load_state_dict(stored.weights)
    return model.eval()


def read_processor(folder: Path) -> Processor:
    """Return the processor of a folder.

    Raises:
        InputError: if it is none.
    """
    path = folder / PROCESSOR
    values = read_json(path, size="PROCESSOR_BYTES", values="PROCESSOR_VALUES")
    if not isinstance(values, dict):
        raise InputError(str(path), expected="JSON that rnnzoo wrote", got=type(values).__name__)
    with naming(path, "a processor that rnnzoo wrote"):
        return load_processor(values)


def build_draft(
    path: Path, config: dict[str, Any], processor: Processor, header: Mapping[str, torch.Tensor]
) -> ZooModel:
    """Return the model that a file describes without memory for its weights, if its code allows it.

    Raises:
        InputError: as `build` does, or if the model is far larger than the weights of the `header`.
    """
    try:
        with no_larger_than(header, str(path)), torch.device("meta"):
            return build(path, config, processor)
    except InputError:
        own = [name for name in config.get("own_cells") or {} if name in CELLS]
        if not any("code" in CELLS.entry(name).facts for name in own):
            raise
    with no_larger_than(header, str(path)):  # the cells of users may ask for numbers when they are made
        return build(path, config, processor)


def build(path: Path, config: dict[str, Any], processor: Processor) -> ZooModel:
    """Return the model that a file describes, with new weights.

    Raises:
        InputError: if there is no such model, it does not take these arguments, or a cell of it is not registered:
            loading runs no code that nobody named.
    """
    if config["model"] not in MODELS:
        raise InputError(
            str(path),
            expected=f"a model among {', '.join(MODELS)}",
            got=repr(config["model"]),
            fix="import the module that registers it, or update rnnzoo",
        )
    own = config.get("own_cells") or {}
    for name in [*own, *cells_in(config["arguments"])]:
        if name not in CELLS:
            raise unknown_cell(path, name, own.get(name))
    kind = MODELS[config["model"]]
    with naming(path, f"arguments of {config['model']}"):
        hints = {name: hint for name, hint in type_hints(kind).items() if name not in HOW_TRAINED}
        check_arguments(config["arguments"], hints, "arguments", config["model"])
        kind.check_stored(config["arguments"])
        model: ZooModel = kind(processor=processor, **config["arguments"])
        return model


@contextmanager
def naming(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever a file of a model folder causes into an `InputError` that names it.

    Raises:
        InputError: for any exception.
    """
    try:
        yield
    except InputError as error:
        raise error if str(path.parent) in str(error) else InputError.from_text(f"{path}: {error}") from error
    except Exception as error:  # a wrong value may come far before it is noticed
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise InputError(str(path), expected=expected, got=reason[:200], fix="copy the folder again") from error


def own_cells(model: ZooModel) -> dict[str, str]:
    """Return the cells of a model that users registered: name → the file or module that did."""
    names = sorted({layers.cell_name for layers in recurrent_layers(model).values()})
    facts = {name: CELLS.entry(name).facts for name in names}
    return {name: facts[name]["code"] for name in names if "code" in facts[name]}


def cells_in(arguments: Any) -> list[str]:
    """Return what the arguments of a model name as cells, of its own and of its parts.

    >>> cells_in({"cell": "gru", "size": 3, "characters": {"cell": "rnn"}})
    ['gru', 'rnn']
    """
    if not isinstance(arguments, dict):
        return []
    inner = [name for key, value in arguments.items() if key != "cell_options" for name in cells_in(value)]
    return [arguments["cell"], *inner] if isinstance(arguments.get("cell"), str) else inner


def unknown_cell(path: Path, name: str, code: str | None) -> InputError:
    """Return the error for a model whose cell is not registered, by `code` if the folder says so."""
    file = None if code == "__main__" else code
    origin = "" if code is None else f", which {file or 'a program'} registered"
    return InputError(
        str(path),
        expected="a cell that is known here",
        got=f"{name!r}{origin}",
        fix=f"on the command line give --import {file or 'FILE.py'}, from Python import it before"
        + (", or update rnnzoo" if code is None else ""),
    )


def check_vocabulary(folder: Path, model: ZooModel, weights: dict[str, Any]) -> None:
    """Refuse weights of another vocabulary than that of ``processor.json``: a tokenizer exchanged by hand.

    Raises:
        InputError: naming both sizes.
    """
    found = other_vocabulary(model, weights)
    if found is not None:
        name, kind, expected, size = found
        raise InputError(
            str(folder / WEIGHTS),
            expected=f"weights of the {expected:,} {kind} of {PROCESSOR}",
            got=f"weights of {size:,} ({name})",
            fix="put the two files together that were saved together; to train on with other words, start from the "
            "whole model folder (--model.init_from)",
        )


def changed(path: Path) -> InputError:
    """Return the error for a file of a model folder that is not what was saved."""
    return InputError(
        str(path),
        expected=f"the contents that {CONFIG} gives the checksum of",
        got="other contents (cut short or changed)",
        fix="copy the folder again",
    )


def warm_start(model: ZooModel, path: str | Path | None = None) -> WarmStart:
    """Start a model from a trained one: load what fits, and say what that was; see `rnnzoo.models.transfer.start`.

    Args:
        model: the new model.
        path: the model folder or run folder of the trained one; None takes the model's `init_from`.

    Raises:
        InputError: if there is no trained model, or nothing of it fits.
    """
    path = model.init_from if path is None else path
    if path is None:
        raise InputError("model.init_from", expected="the folder of a trained model", got="none")
    source = load(path)
    found = start(model, source)
    if found.taken == 0:
        reasons = dict.fromkeys(each.why for each in found.tensors if each.why != NOT_THERE)
        why = "; ".join(list(reasons)[:REASONS_NAMED]) or "it has no tensor of the same name"
        raise InputError(
            f"model.init_from {path}",
            expected=f"a model of which something fits this {describe(model)}",
            got=f"a {describe(source)}, of which nothing does: {why}",
        )
    model.origin = {
        "path": str(path),
        "class": type(source).__name__,
        "sha256": sha256(weights_file(path)),
        "numbers_taken": found.taken,
        "numbers_new": found.new,
    }
    return found


def describe(model: ZooModel) -> str:
    """Return what a message calls a model: its class and, if it has one, its cell."""
    facts = dict(model.hparams)
    cell = f" ({facts['cell']}, {facts['num_layers']} layer(s) of {facts['hidden_size']})" if "cell" in facts else ""
    return type(model).__name__ + cell


def first_names(model: ZooModel) -> dict[str, str]:
    """Return for each tensor of a model its name, or the first name of the same tensor where weights are tied."""
    seen: dict[int, str] = {}
    return {name: seen.setdefault(id(value), name) for name, value in model.state_dict(keep_vars=True).items()}


def model_folder(path: str | Path) -> Path:
    """Return the model folder at `path`: itself, or the ``model`` folder of a run folder.

    Raises:
        InputError: if there is none.
    """
    folder = Path(path)
    for candidate in (folder, folder / "model"):
        if (candidate / CONFIG).is_file():
            return candidate
    if (folder / WEIGHTS).is_file():
        raise InputError(str(folder / CONFIG), expected="a file of the model folder", got="nothing")
    state = "a folder without them" if folder.is_dir() else "a file" if folder.exists() else "nothing"
    raise InputError(
        str(path),
        expected=f"a model folder ({CONFIG}, {PROCESSOR}, {WEIGHTS}) or a run folder with one",
        got=state,
        fix="give the folder that `rnnzoo fit` printed",
    )


def weights_file(path: str | Path) -> Path:
    """Return the file that `load` takes the weights from."""
    if is_unfinished(Path(path)):
        return newest_readable(Path(path), (BEST, LAST))[0]
    return model_folder(path) / WEIGHTS


def data_section(path: str | Path) -> tuple[Any, str]:
    """Return what a model or run folder tells of the data of the training, and the file that does."""
    run = Path(path)
    if is_unfinished(run):
        return read_recipe(run / RUN_CONFIG).get("data"), str(run / RUN_CONFIG)
    folder = model_folder(path)
    return read_config(folder).get("data"), str(folder / CONFIG)


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json``.

    Raises:
        InputError: if it is none, or of a newer format.
    """
    path = folder / CONFIG
    config = read_json(path, size="CONFIG_BYTES", values="CONFIG_VALUES")
    if not isinstance(config, dict) or type(config.get("format")) is not int:
        expected = "JSON that rnnzoo wrote, with an integer under 'format'"
        raise InputError(str(path), expected=expected, got=repr(config)[:80], fix="copy the folder again")
    if config["format"] > FORMAT:
        expected = f"a model folder of format {FORMAT} or older"
        raise InputError(str(path), expected=expected, got=f"format {config['format']}", fix="update rnnzoo")
    for key, hint in CONFIG_TYPES.items():
        if key not in config and key != "own_cells":
            raise InputError(str(path), expected=f"the key {key!r}", got="none", fix="copy the folder again")
        check_value(config.get(key), hint, f"{path}: {key}")
    return config


def sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
