"""The catalogue of models and recipes is complete, and every model in it trains, is measured and answers."""

from __future__ import annotations

import datasets
import pytest
import torch
from catalogue_models import CELLS, MODELS, RECIPES

from rnnzoo.data import DATA_MODULES
from rnnzoo.data.synthetic import SYNTHETIC
from rnnzoo.models import MODELS as REGISTERED
from rnnzoo.models import list_models
from rnnzoo.recipes import list_recipes, read_recipe

SAMPLES = 24
STEPS = 8


def variants():
    return list(_variants())


def _variants():
    for name, case in MODELS.items():
        for cell in CELLS if case.recurrent else (None,):
            yield pytest.param(name, cell, id=name if cell is None else f"{name}-{cell}")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are so small that threads only wait for each other
    yield
    torch.set_num_threads(threads)


def build(name, cell):
    case = MODELS[name]
    sizes = {"train": 4 * SAMPLES, "validation": SAMPLES, "test": SAMPLES}
    options = {"limit": SAMPLES, "batch_size": SAMPLES, "synthetic_options": {"sizes": sizes}}
    data = DATA_MODULES[case.data](synthetic=case.task, **options)
    torch.manual_seed(0)
    arguments = case.arguments if cell is None else {**case.arguments, "cell": cell}
    model = REGISTERED[name](processor=data.processor, **arguments)
    return model, data


def first_batch(data, split="train"):
    encoded = data.encoded(split)
    return data.processor.collate(encoded.__getitems__(list(range(SAMPLES))))


# Completeness


def test_every_model_is_in_the_catalogue():
    assert sorted(MODELS) == sorted(list_models())
    assert {name: case.pattern for name, case in MODELS.items()} == {
        name: REGISTERED.entry(name).facts["pattern"] for name in REGISTERED
    }


def test_every_recipe_is_in_the_catalogue():
    assert sorted(RECIPES) == sorted(recipe.name for recipe in list_recipes())


def test_every_data_module_and_synthetic_task_is_used():
    assert {case.data for case in RECIPES.values()} == set(DATA_MODULES)
    recipes = [read_recipe(recipe.path)["data"]["init_args"] for recipe in list_recipes()]
    trained = {data["synthetic"] for data in recipes if "synthetic" in data}
    assert {case.task for case in MODELS.values()} <= trained == set(SYNTHETIC)


def test_every_model_has_a_recipe_of_its_pattern():
    assert {(case.model, name.split("/")[0]) for name, case in RECIPES.items()} == {
        (name, case.pattern) for name, case in MODELS.items()
    }


# Every model


@pytest.mark.parametrize(("name", "cell"), variants())
def test_training_reaches_every_parameter_and_lowers_the_loss(name, cell):
    model, data = build(name, cell)
    batch = first_batch(data)
    model.eval()  # the same network in every step
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(STEPS):
        total, count = model.objective(model(batch), batch)
        loss = total / count
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert any(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert losses[-1] < 0.97 * losses[0]


@pytest.mark.parametrize(("name", "cell"), variants())
def test_measuring_yields_defined_numbers(name, cell):
    model, data = build(name, cell)
    batch = first_batch(data, "test")
    metrics = model.split_metrics("test")
    with torch.no_grad():
        model.eval().update_metrics(metrics, model(batch), batch)
    values = {key: float(value) for metric in metrics.values() for key, value in metric.compute().items()}
    assert set(MODELS[name].metrics) <= set(values)
    assert set(values) == set(model.definitions("test"))
    assert all(value == value for value in values.values())
    assert model.selection[0] in values


@pytest.mark.parametrize(("name", "cell"), variants())
def test_raw_samples_are_answered_in_order_whatever_the_batch(name, cell):
    model, data = build(name, cell)
    raw = [dict(data.raw("test")[place]) for place in range(5)]
    answers = list(model.answer(raw, batch_size=2))
    assert len(answers) == len(raw)
    assert all(MODELS[name].answer in answer for answer in answers)
    backwards = list(model.answer(raw[::-1], batch_size=5))[::-1]
    key = MODELS[name].answer
    if name == "FrameLabeller":
        first, second = ([f["numbers"]["y0"] for answer in each for f in answer[key]] for each in (answers, backwards))
        assert first == pytest.approx(second, abs=1e-5)
    else:
        assert [answer[key] for answer in answers] == [answer[key] for answer in backwards]


@pytest.mark.slow
def test_best_scores_are_of_metrics_that_the_models_have():
    for name, case in MODELS.items():
        data = DATA_MODULES[case.data](synthetic=case.task, limit=SAMPLES)
        assert set(data.best_scores) == {"validation", "test"}
        for values in data.best_scores.values():
            assert set(values) <= set(case.metrics), name
