"""A trained model as a folder: JSON and safetensors, nothing that runs code when it is read.

``config.json`` (model class, its arguments, versions, checksums), ``processor.json`` (tokenizers, labels,
normalisation) and ``model.safetensors`` (weights).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rnnzoo.cells import CELLS
from rnnzoo.errors import InputError
from rnnzoo.models import MODELS
from rnnzoo.models.base import ZooModel
from rnnzoo.models.transfer import NOT_THERE, WarmStart, other_vocabulary, recurrent_layers, start
from rnnzoo.version import __version__

FORMAT = 1
CONFIG, PROCESSOR, WEIGHTS = "config.json", "processor.json", "model.safetensors"
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
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    before = draft.with_name(f"{draft.name}.before")
    try:
        arguments = dict(model.hparams)
        processor = arguments.pop("processor")
        first = first_names(model)
        weights = {
            name: value.detach().cpu().contiguous() for name, value in model.state_dict().items() if first[name] == name
        }
        save_file(weights, draft / WEIGHTS, metadata={"format": "pt"})
        (draft / PROCESSOR).write_text(json.dumps(processor, ensure_ascii=False), encoding="utf-8")
        config = {
            "format": FORMAT,
            "rnnzoo": __version__,
            "torch": torch.__version__,
            "model": type(model).__name__,
            "arguments": arguments,
            "own_cells": own_cells(model),
            "sha256": {name: sha256(draft / name) for name in (PROCESSOR, WEIGHTS)},
            **(facts or {}),
        }
        (draft / CONFIG).write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        draft.chmod(0o755)
        if folder.exists():
            os.replace(folder, before)
        os.replace(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    shutil.rmtree(before, ignore_errors=True)
    return folder


def load(path: str | Path) -> ZooModel:
    """Load a model from its folder, or from the run folder that holds it, ready to answer raw input.

    Raises:
        InputError: if a file is missing, cut short or changed, or was written by a newer version.
    """
    folder = model_folder(path)
    config = read_config(folder)
    for name in (PROCESSOR, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(
                str(folder / name), expected="a file of the model folder", got="nothing", fix="copy the folder again"
            )
    if sha256(folder / WEIGHTS) != config["sha256"].get(WEIGHTS):
        raise changed(folder / WEIGHTS)
    intact = sha256(folder / PROCESSOR) == config["sha256"].get(PROCESSOR)
    try:
        model = build(folder, config)
    except Exception as error:
        if intact:
            raise
        raise changed(folder / PROCESSOR) from error
    try:
        weights = load_file(folder / WEIGHTS)
        weights |= {name: weights[first] for name, first in first_names(model).items() if first in weights}
        check_vocabulary(folder, model, weights)
        if not intact:
            raise changed(folder / PROCESSOR)
        model.load_state_dict(weights)
    except (RuntimeError, SafetensorError) as error:
        raise InputError(
            str(folder / WEIGHTS), expected=f"the weights of this {config['model']}", got=str(error).splitlines()[-1]
        ) from error
    return model.eval()


def build(folder: Path, config: dict[str, Any]) -> ZooModel:
    """Return the model that a folder describes, without its weights.

    Raises:
        InputError: if there is no such model, it does not take these arguments, or a cell of it is not registered:
            loading runs no code that nobody named.
    """
    if config["model"] not in MODELS:
        raise InputError(
            str(folder / CONFIG),
            expected=f"a model among {', '.join(MODELS)}",
            got=repr(config["model"]),
            fix="import the module that registers it, or update rnnzoo",
        )
    own = config.get("own_cells") or {}
    for name in [*own, *cells_in(config["arguments"])]:
        if name not in CELLS:
            raise unknown_cell(folder, name, own.get(name))
    processor = json.loads((folder / PROCESSOR).read_text(encoding="utf-8"))
    try:
        return MODELS[config["model"]](processor=processor, **config["arguments"])
    except TypeError as error:
        raise InputError(
            str(folder / CONFIG), expected=f"arguments of {config['model']}", got=str(error), fix="update rnnzoo"
        ) from error


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


def unknown_cell(folder: Path, name: str, code: str | None) -> InputError:
    """Return the error for a model whose cell is not registered, by `code` if the folder says so."""
    file = None if code == "__main__" else code
    origin = "" if code is None else f", which {file or 'a program'} registered"
    return InputError(
        str(folder / CONFIG),
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
    folder = model_folder(path)
    source = load(folder)
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
        "sha256": sha256(folder / WEIGHTS),
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


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json``."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        version = int(config["format"])
        complete = all(key in config for key in ("model", "arguments", "sha256"))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            str(folder / CONFIG), expected="JSON that rnnzoo wrote", got=f"{error}", fix="copy the folder again"
        ) from error
    if version > FORMAT or not complete:
        raise InputError(
            str(folder / CONFIG),
            expected=f"a model folder of format {FORMAT} or older",
            got=f"format {version}" + ("" if complete else " with keys missing"),
            fix="update rnnzoo" if version > FORMAT else "copy the folder again",
        )
    return config


def sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
