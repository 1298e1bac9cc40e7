"""What was measured on each split, with the definitions that hold for that split."""

from __future__ import annotations

import json
import re

import pytest
from lightning.pytorch import Trainer
from small_models import ARGUMENTS

from rnnzoo.cli.evaluation import evaluate
from rnnzoo.data import LanguageData
from rnnzoo.models import LanguageModel
from rnnzoo.recipes import recipe_folder
from rnnzoo.report import metric_entries
from rnnzoo.text.tokenizer import TokenizerOptions

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
LANGUAGE_MODELS = sorted((recipe_folder() / "results").glob("next_step__*.json"))


@pytest.mark.filterwarnings("ignore")  # Lightning warns of few workers
def test_definitions_are_those_of_their_split(folder):
    files = {"train.txt": "a b c d\n" * 40, "valid.txt": "a b c\n" * 5, "test.txt": "a b\n" * 7}
    data = LanguageData(path=folder(files), tokenizer=TokenizerOptions(kind="words"), line_end=True, batch_size=2)
    model = LanguageModel(processor=data.processor, **ARGUMENTS["LanguageModel"])
    found = evaluate(model, data, Trainer(**QUIET))
    entries = metric_entries(found.values, found.definitions, {})
    counts = {split: entries[split]["perplexity"]["definition"] for split in entries}
    assert counts == {
        "validation": "exp of the loss: per token, of 20",
        "test": "exp of the loss: per token, of 21",
    }
    assert "30 characters" in entries["validation"]["bits_per_character"]["definition"]
    assert "28 characters" in entries["test"]["bits_per_character"]["definition"]
    for split, short in (("validation", "val"), ("test", "test")):
        assert found.definitions[split] == model.definitions(short)
        assert set(found.definitions[split]) == set(found.values[split])


@pytest.mark.parametrize("path", LANGUAGE_MODELS, ids=lambda path: path.stem)
def test_stored_results_count_the_tokens_of_their_split(path):
    for run in json.loads(path.read_text(encoding="utf-8"))["runs"].values():
        pattern = r"([\d,]+) tokens of ([\d,]+) characters in (\w+)"
        sizes = {split: counts for *counts, split in re.findall(pattern, " ".join(run["data"]["notes"]))}
        assert set(run["metrics"]) <= set(sizes)
        for split, metrics in run["metrics"].items():
            tokens, characters = sizes[split]
            assert f"over its {tokens} tokens" in metrics["loss"]["definition"], split
            assert f"of {tokens}" in metrics["perplexity"]["definition"], split
            assert f"the {characters} characters" in metrics["bits_per_character"]["definition"], split
