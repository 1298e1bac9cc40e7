"""What people ask of a model is answered in evaluation mode and without gradients, whatever mode it was in before.

Every public method of every model is in `CALLS` or in `PARTS_OF_TRAINING`; a new one that is in neither fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest
import torch
from catalogue_models import MODELS as CASES
from lightning.pytorch import LightningModule
from small_models import ARGUMENTS, SAMPLES, batch_of, build

from rnnzoo.models import MODELS
from rnnzoo.models.evaluating import evaluated, evaluating

# What works on batches and outputs in whatever mode it is called, says what a model is, or trains it. Hooks and steps
# that Lightning calls are no methods for people.
PARTS_OF_TRAINING = {
    *("forward", "objective", "build_metrics", "update_metrics", "answers", "sample_losses", "best_tags", "tag_texts"),
    *("encode", "describe", "vectors", "hypotheses", "text", "answer_batch", "to_batch"),
    *("train", "progress", "carried", "carry_on"),
    *("freeze_parts", "parts", "parameter_groups", "parameter_counts", "vocabularies", "plain_arguments"),
    *("definitions", "split_metrics"),
}
TEXTS = ["the cat", "sat on the mat"]
CALLS = {  # name → the call, given a model, its raw samples and a folder
    "answer": lambda model, samples, folder: model.answer(samples),
    "show": lambda model, samples, folder: model.show(samples),
    "draw": lambda model, samples, folder: model.draw(samples, folder),
    "caption": lambda model, samples, folder: model.caption([sample["image"] for sample in samples]),
    "translate": lambda model, samples, folder: model.translate(TEXTS),
    "tag": lambda model, samples, folder: model.tag([text.split() for text in TEXTS]),
    "label": lambda model, samples, folder: model.label([sample["frames"] for sample in samples]),
    "classify": lambda model, samples, folder: model.classify([next(iter(sample.values())) for sample in samples]),
    "score": lambda model, samples, folder: model.score(TEXTS),
    "generate": lambda model, samples, folder: model.generate("the cat", max_tokens=20, options={"method": "greedy"}),
    "stream": lambda model, samples, folder: model.stream("the cat", max_tokens=20, options={"min_length": 20}),
    "start_state": lambda model, samples, folder: model.start_state(2),
    "step": lambda model, samples, folder: model.step(torch.tensor([2, 3]), model.start_state(2)),
    "read_step": lambda model, samples, folder: model.read_step(torch.tensor([2, 3]), model.start_state(2)),
}
NO_LAYERS = {("start_state", "LanguageModel")} | {
    ("draw", name) for name in MODELS if name not in ("Captioner", "Translator")
}


def public_methods(model_class):
    """Return the names of the methods that the package itself gives a model."""
    own = [kind for kind in model_class.__mro__ if kind.__module__.startswith("rnnzoo.")]
    return sorted({name for kind in own for name, value in vars(kind).items() if is_method(name, value)})


def is_method(name, value):
    hidden = name.startswith("_") or hasattr(LightningModule, name)
    return not hidden and (inspect.isfunction(value) or isinstance(value, staticmethod))


def dropping(name):
    """Return a model in training mode that drops half of everything, but for one layer that its user holds still."""
    options = {"dropout": 0.5} if "dropout" in inspect.signature(MODELS[name]).parameters else {}
    if "words" in ARGUMENTS[name]:
        options["words"] = {"size": 6, "dropout": 0.5}
    model = build(name, **options).train()
    list(model.children())[-1].eval()
    return model


def modes(model):
    return [part.training for part in model.modules()]


def watch(model):
    """Return a list in which every call of a layer of the model leaves its mode, and whether gradients are on."""
    seen = []
    for part in model.modules():
        part.register_forward_pre_hook(lambda part, _: seen.append((part.training, torch.is_grad_enabled())))
    return seen


def plain(value):
    if isinstance(value, Iterator):
        value = list(value)
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def pictures(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


METHODS = [(name, method) for name in CASES for method in public_methods(MODELS[name])]
ASKED = [(name, method) for name, method in METHODS if method not in PARTS_OF_TRAINING]


@pytest.mark.parametrize("name", CASES)
def test_every_public_method_is_known(name):
    unknown = set(public_methods(MODELS[name])) - PARTS_OF_TRAINING - set(CALLS)
    assert not unknown, f"give {sorted(unknown)} a call in CALLS, and `evaluated`"


@pytest.mark.parametrize(("name", "method"), ASKED)
def test_answers_are_those_of_evaluation_mode(name, method, tmp_path):
    model, still = dropping(name), dropping(name).eval()
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    before, seen = modes(model), watch(model)
    found = plain(CALLS[method](model, SAMPLES[name], folders[0]))
    assert found == plain(CALLS[method](still, SAMPLES[name], folders[1]))
    assert pictures(folders[0]) == pictures(folders[1])
    assert modes(model) == before
    assert torch.is_grad_enabled()
    assert bool(seen) != ((method, name) in NO_LAYERS)
    assert set(seen) <= {(False, False)}


@pytest.mark.parametrize(("name", "method"), ASKED)
def test_modes_come_back_after_an_error(name, method, tmp_path):
    model = dropping(name)
    before = modes(model)

    def fail(*_):
        raise RuntimeError("broken")

    for part in model.modules():
        part.register_forward_pre_hook(fail)
    if (method, name) not in NO_LAYERS:
        with pytest.raises(RuntimeError, match="broken"):
            plain(CALLS[method](model, SAMPLES[name], tmp_path))
    assert modes(model) == before
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("name", "method"), [each for each in ASKED if each[1] in ("answer", "stream")])
def test_between_the_items_of_a_stream_the_modes_are_the_callers(name, method, tmp_path):
    model = dropping(name)
    before = modes(model)
    expected = plain(CALLS[method](model, SAMPLES[name] * 20, tmp_path))
    items = CALLS[method](model, SAMPLES[name] * 20, tmp_path)
    assert modes(model) == before, "nothing is computed before the first item is asked for"
    found = []
    for item in items:
        found.append(item)
        assert modes(model) == before
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    assert found == expected
    items = CALLS[method](model, SAMPLES[name] * 20, tmp_path)
    next(items)
    model.eval()
    next(items)
    del items
    assert not any(modes(model)), "a mode that was set meanwhile stays"


@pytest.mark.parametrize("name", CASES)
def test_training_goes_on_after_an_answer(name):
    """Nothing that evaluation made is left where a gradient would need it."""
    model = dropping(name).train()
    items = model.answer(SAMPLES[name] * 20)
    next(items)
    model.objective(model(batch_of(model)), batch_of(model)).total.backward()
    next(items)
    assert any(parameter.grad is not None for parameter in model.parameters())


def test_what_a_step_returns_can_be_changed_and_trained_with():
    model = dropping("LanguageModel")
    logs, state = model.step(torch.tensor([2]), model.start_state(1))
    logs[:, 0] = 0.0
    weight = torch.nn.Parameter(torch.ones(()))
    (logs.sum() * weight).backward()
    assert weight.grad is not None
    model.step(torch.tensor([3]), state)


def test_the_decorator_by_itself():
    class Layer(torch.nn.Module):
        @evaluated()
        def modes(self):
            """Say in what mode it runs."""
            return self.training, torch.is_grad_enabled()

        @evaluated()
        def several(self):
            while True:
                yield self.training

    layer = Layer()
    assert layer.modes() == (False, False)
    assert layer.modes.__doc__ == "Say in what mode it runs."
    assert layer.training
    items = layer.several()
    assert not next(items)
    assert layer.training
    with evaluating(layer):
        assert not layer.training
    assert layer.training
