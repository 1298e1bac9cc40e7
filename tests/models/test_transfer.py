"""Starting from another model: what fits is the same numbers, rows follow their names, and the table says so."""

from __future__ import annotations

import pytest
import torch

from rnnzoo.models import LanguageModel, SequenceClassifier, SequenceTagger, Translator
from rnnzoo.models.transfer import carry, start
from rnnzoo.processors.language import LanguageProcessor
from rnnzoo.processors.tagging import TaggingProcessor
from rnnzoo.processors.text_classification import TextClassificationProcessor
from rnnzoo.processors.translation import TranslationProcessor
from rnnzoo.text.labels import LabelMap
from rnnzoo.text.tokenizer import PAD, UNKNOWN, Tokenizer, TokenizerOptions
from rnnzoo.text.vocabulary import Vocabulary

OLD, NEW = "the cat sat on the mat", "a mat the Cat saw sat"
SIZES = {"hidden_size": 5, "words": {"size": 3}}
ONE_WAY = {"recurrent": {"bidirectional": False}}


def tokenizer(text, kind="words"):
    return Tokenizer.train([text], TokenizerOptions(kind=kind))


def language_model(text=OLD, kind="words", **options):
    return noisy(LanguageModel(processor=LanguageProcessor(tokenizer=tokenizer(text, kind)), **{**SIZES, **options}))


def classifier(text=NEW, labels=("x", "y"), **options):
    processor = TextClassificationProcessor(tokenizer=tokenizer(text), labels=LabelMap(labels))
    return noisy(SequenceClassifier(processor=processor, **{**SIZES, **options}))


def tagger(text=NEW, tags=("D", "N", "V"), **options):
    words = Tokenizer.train_words(text.split(), TokenizerOptions())
    characters = tokenizer(text, "characters")
    processor = TaggingProcessor(words=words, characters=characters, tags=LabelMap(tags))
    return noisy(SequenceTagger(processor=processor, **{**SIZES, **options}))


def translator(source=OLD, target=NEW, *, joint=False, **options):
    one = tokenizer(f"{source} {target}")
    pair = (one, one) if joint else (tokenizer(source), tokenizer(target))
    processor = TranslationProcessor(source=pair[0], target=pair[1], shared=joint)
    return noisy(Translator(processor=processor, **{"hidden_size": 6, "words": {"size": 3}, **options}))


def noisy(model):
    """Give every number a value of its own, padding excepted."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.5, 0.5)
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0
    return model.eval()


def told(found):
    """Return place → (loaded, remapped, new, why)."""
    return {each.place: tuple(each)[1:] for each in found.tensors}


# Vocabularies


def test_rows_are_found_by_name_within_a_kind():
    old = Vocabulary("words", (PAD, UNKNOWN, "the", "cat", None))
    assert Vocabulary("words", (PAD, UNKNOWN, "cat", "The", "dog", None)).places_in(old) == [0, 1, 3, 2, -1, 4]
    assert Vocabulary("words", (PAD, UNKNOWN, "dog", None)).places_in(old) == [-1] * 4  # special tokens alone
    assert Vocabulary("characters", (PAD, UNKNOWN, "cat")).places_in(old) == [-1] * 3
    labels = Vocabulary.of_labels(["a", PAD])
    assert Vocabulary.of_labels([PAD, "A"]).places_in(labels) == [1, -1]


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_axes_with_names_are_put_in_order_and_filled_with_the_mean(axes):
    old, new = Vocabulary.of_labels("abc"), Vocabulary.of_labels("cxa")
    source = torch.arange(9.0).reshape(3, 3) ** 2
    named = [[vocabulary if axis in axes else None for axis in (0, 1)] for vocabulary in (new, old)]
    fit = carry(torch.zeros(3, 3), source, *named)
    expected, known = source, torch.ones(3, 3, dtype=torch.bool)
    for axis in axes:
        lines = expected.unbind(axis)
        expected = torch.stack([lines[2], (lines[0] + lines[2]) / 2, lines[0]], axis)
        known = known & torch.tensor([True, False, True]).reshape([3, 1] if axis == 0 else [1, 3])
    assert torch.equal(fit.values, expected)
    assert torch.equal(fit.known, known)
    assert fit.moved
    assert fit.why == "2 of 3 labels known"


# One class


@pytest.mark.parametrize("make", [language_model, classifier, tagger, translator])
def test_the_same_vocabulary_gives_the_same_model(make):
    source, model = make(), make()
    found = start(model, source)
    assert found.new == 0
    assert found.unused == ()
    assert all(each.remapped == 0 for each in found.tensors)
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize("options", [{}, {"tied": True}, {"one_hot": True, "words": None}])
def test_a_language_model_keeps_the_words_that_it_knows(options):
    source, model = language_model(OLD, **options), language_model(NEW, **options)
    found = start(model, source)
    old, new = (Vocabulary.of_tokens(each.processor.tokenizer, end=True).names for each in (source, model))
    tables = {"head.bias": 0, "head.weight": 0}
    tables |= {"recurrent.cells.0.input_weight": 1} if "one_hot" in options else {"words.table.weight": 0}
    for name, axis in tables.items():
        ours, theirs = (each.state_dict()[name].movedim(axis, 0) for each in (model, source))
        shared = [old.index(word) for word in old if word in ("mat", "sat", "the")]
        mean = theirs[[*shared, old.index("cat")]].mean(0)
        for row, word in enumerate(new):
            place = "cat" if word == "Cat" else word
            torch.testing.assert_close(ours[row], theirs[old.index(place)] if place in old else mean)
    torch.testing.assert_close(model.recurrent.cells[0].bias, source.recurrent.cells[0].bias)
    numbers = told(found)["head.bias"]
    assert numbers == (0, len(new) - 2, 2, "7 of 9 words known")  # "a" and "saw" are new
    assert (told(found).get("head.weight") is None) == ("tied" in options)


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("theirs", [False, True])
def test_translators_keep_the_words_of_both_sides_however_their_tables_are_shared(ours, theirs):
    options = [{"joint": each, "shared_embeddings": each, "tied": True} for each in (theirs, ours)]
    source, model = translator(OLD, NEW, **options[0]), translator("mat a on", "saw the the", **options[1])
    start(model, source)

    def row(each, side, word):
        table = each.source if side == "source" else each.decoder.embedding
        return table.table.weight[getattr(each.processor, side).vocabulary.index(word)]

    for word in ("mat", "on"):
        assert torch.equal(row(model, "source", word), row(source, "source", word))
    for word in ("saw", "the"):
        side = "source" if ours and not theirs and word == "the" else "target"  # the first table that knows it
        assert torch.equal(row(model, "target", word), row(source, side, word))
    ends = [each.decoder.head.bias[-1] for each in (model, source)]
    assert torch.equal(*ends)
    assert torch.equal(model.decoder.attention.vector.weight, source.decoder.attention.vector.weight)


def test_labels_and_transitions_follow_their_names():
    source, model = (tagger(tags=tags, crf=True) for tags in (("D", "N", "V"), ("V", "X", "D")))
    found = start(model, source)
    assert torch.equal(model.head.weight[[0, 2]], source.head.weight[[2, 0]])
    assert torch.equal(model.crf.transitions[[0, 2]][:, [0, 2]], source.crf.transitions[[2, 0]][:, [2, 0]])
    torch.testing.assert_close(model.crf.start[1], source.crf.start[[0, 2]].mean())
    assert told(found)["crf.transitions"] == (0, 4, 5, "2 of 3 labels known")
    other = classifier(labels=("p", "q"))
    before = other.head.weight.clone()
    assert told(start(other, classifier()))["head.weight"] == (0, 0, before.numel(), "no labels in common")
    assert torch.equal(other.head.weight, before)


def test_layers_are_found_by_depth_and_direction_not_by_number():
    deep = classifier(num_layers=2, **ONE_WAY)
    both = classifier(recurrent={"bidirectional": True, "recurrent_dropout": 0.5}, num_layers=2)
    found = told(start(both, deep))
    for layer in (0, 1):
        ours, theirs = both.recurrent.cells[2 * layer].cell, deep.recurrent.cells[layer]
        assert torch.equal(ours.recurrent_weight, theirs.recurrent_weight)
        assert torch.equal(ours.bias, theirs.bias)
        assert found[f"recurrent.layer {layer} backward.bias"] == (0, 0, 20, "the source has no backward direction")
    assert torch.equal(both.recurrent.cells[0].cell.input_weight, deep.recurrent.cells[0].input_weight)
    assert found["recurrent.layer 1 forward.input_weight"] == (0, 0, 200, "20×10 numbers, in the source 20×5")
    shallow = classifier(**ONE_WAY)
    found = start(shallow, both)
    assert torch.equal(shallow.recurrent.cells[0].bias, both.recurrent.cells[0].cell.bias)
    assert "recurrent.layer 1 forward.bias" in found.unused
    assert "recurrent.layer 0 backward.bias" in found.unused


def test_learnt_initial_states_go_to_their_layer():
    options = {"recurrent": {"learn_initial_state": True, "bidirectional": False}}
    source = classifier(num_layers=2, **options)
    model = classifier(recurrent={"learn_initial_state": True}, num_layers=2)
    start(model, source)
    for theirs, ours in ((0, 0), (1, 1), (2, 4), (3, 5)):  # hidden and cell of layer 0, then of layer 1
        assert torch.equal(model.recurrent.initial[ours], source.recurrent.initial[theirs])


def test_another_cell_gives_nothing_to_the_recurrent_layers():
    model = classifier(cell="rnn_relu")
    before = {name: value.clone() for name, value in model.recurrent.state_dict().items()}
    found = start(model, classifier(cell="rnn"))
    assert {why for place, (*_, why) in told(found).items() if place.startswith("recurrent.")} == {
        "cell rnn_relu, in the source rnn"
    }
    assert all(torch.equal(value, before[name]) for name, value in model.recurrent.state_dict().items())
    assert told(found)["words.table.weight"][0] > 0


# Two classes


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru", "gru_reset_before"])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("make", [classifier, tagger])
def test_a_language_model_warms_up_a_reader_that_then_reads_as_it_does(cell, num_layers, make):
    source = language_model(cell=cell, num_layers=num_layers)
    model = make(cell=cell, num_layers=num_layers, **ONE_WAY)
    found = start(model, source)
    words = ["the", "mat", "sat"]
    ours = model.processor.words if make is tagger else model.processor.tokenizer
    hidden = [
        each.recurrent(each.words(torch.tensor([tokens.encode_words(words)])))[0]
        for each, tokens in ((model, ours), (source, source.processor.tokenizer))
    ]
    torch.testing.assert_close(*hidden)
    assert {place for place, (*_, new, _) in told(found).items() if new} >= {"head.weight", "head.bias"}
    assert told(found)["head.weight"][-1] == "not in the source"
    assert all(row[2] == 0 for place, row in told(found).items() if place.startswith("recurrent."))
    assert found.unused == ("head.bias", "head.weight")


def test_tokens_of_another_kind_are_not_taken_for_words():
    model = classifier("a b c d", **ONE_WAY)
    before = model.words.table.weight.clone()
    found = told(start(model, language_model("a b c d", kind="characters")))
    assert found["words.table.weight"] == (0, 0, before.numel(), "words, in the source characters")
    assert torch.equal(model.words.table.weight, before)
    assert found["recurrent.layer 0 forward.bias"][0] == 20


def test_one_hot_columns_are_no_vectors():
    source = language_model(one_hot=True, words=None)
    model = classifier(words={"size": source.vocabulary_size}, **ONE_WAY)  # as wide, by accident
    found = told(start(model, source))
    assert found["words.table.weight"][-1] == "not in the source"
    assert found["recurrent.layer 0 forward.input_weight"][:2] == (0, 0)
    assert found["recurrent.layer 0 forward.recurrent_weight"][0] == 100


def test_the_table_has_a_row_for_each_module_and_adds_up():
    source, model = language_model(num_layers=2), classifier(num_layers=2)
    found = start(model, source)
    head, *rows, last = found.table().splitlines()
    assert head.split() == ["module", "loaded", "remapped", "new", "why"]
    numbers = {row[:26].strip(): [int(each.replace(",", "")) for each in row[26:].split()[:3]] for row in rows}
    assert list(numbers) == [
        "words.table",
        *(f"recurrent.layer {layer} {direction}" for layer in (0, 1) for direction in ("forward", "backward")),
        "head",
    ]
    assert sum(map(sum, numbers.values())) == sum(parameter.numel() for parameter in model.parameters())
    assert sum(row[2] for row in numbers.values()) == found.new
    assert "input_weight: 20×10 numbers, in the source 20×5" in found.table()
    assert last == "not used of the source: recurrent.layer 1 forward (1 tensor), head (2 tensors)"
