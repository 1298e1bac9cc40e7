"""What the base of all models promises: means over the global batch, clipping, metrics by id, clear stops."""

from __future__ import annotations

import itertools

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from rnnzoo.batches import UNSEEN, TextBatch
from rnnzoo.data import TaggingData, TextClassificationData
from rnnzoo.errors import InputError
from rnnzoo.models import SequenceClassifier, SequenceTagger
from rnnzoo.processors.text_classification import TextClassificationProcessor
from rnnzoo.text.labels import LabelMap
from rnnzoo.text.tokenizer import Tokenizer, TokenizerOptions

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
    "max_epochs": 1,
}


def processor(multi_label=False):
    tokenizer = Tokenizer.train(["a b c d e f"], TokenizerOptions())
    return TextClassificationProcessor(tokenizer=tokenizer, labels=LabelMap(["x", "y"]), multi_label=multi_label)


def batch(sizes, start=0):
    torch.manual_seed(start)
    lengths = torch.tensor(sizes)
    tokens = torch.randint(2, 8, (len(sizes), max(sizes)))
    targets = torch.randint(2, (len(sizes),))
    return TextBatch(torch.arange(start, start + len(sizes)), tokens, lengths, targets)


def classifier(**options):
    torch.manual_seed(1)
    return SequenceClassifier(
        processor=processor(),
        hidden_size=4,
        dropout=0.0,
        words={"size": 3},
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        **options,
    )


def loader(batches):
    return DataLoader(batches, batch_size=None)


@pytest.mark.filterwarnings("ignore:.*many workers.*", "ignore:.*number of training batches.*")
def train(model, batches, **settings):
    Trainer(**{**QUIET, **settings}).fit(model, loader(batches))
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec.*"),
    pytest.mark.filterwarnings("ignore:.*no `val_dataloader`.*"),
]


def test_accumulated_batches_of_different_sizes_equal_one_large_batch():
    one, two = batch([3, 3, 3, 3, 3]), batch([3], start=5)
    whole = TextBatch(*(torch.cat([a, b]) for a, b in zip(one, two, strict=True)))
    together = train(classifier(), [whole], gradient_clip_val=0)
    cut = train(classifier(), [one, two], accumulate_grad_batches=2, gradient_clip_val=0)
    apart = train(classifier(), [one, two], gradient_clip_val=0)
    assert torch.allclose(together, cut, atol=1e-6)
    assert not torch.allclose(together, apart, atol=1e-3)


def unknown(lengths, start=0):
    """Return a batch without a label that is known."""
    made = batch(lengths, start=start)
    return made._replace(targets=torch.full_like(made.targets, UNSEEN))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_accumulated_batches_without_items_change_nothing_wherever_they_come(order):
    parts = [batch([3, 2]), unknown([4]), batch([3], start=5)]
    together = train(classifier(), [parts[0], parts[2]], accumulate_grad_batches=2, gradient_clip_val=0)
    found = train(classifier(), [parts[place] for place in order], accumulate_grad_batches=3, gradient_clip_val=0)
    assert torch.allclose(together, found, atol=1e-6)


def test_accumulated_batches_of_nothing_but_unknown_labels_leave_the_weights_as_they_are():
    before = torch.cat([parameter.detach().reshape(-1) for parameter in classifier().parameters()])
    assert torch.equal(train(classifier(), [unknown([3]), unknown([2])], accumulate_grad_batches=2), before)


def test_the_loss_of_an_epoch_is_its_mean_by_items_without_class_weights():
    one, two = batch([3, 3]), batch([3], start=5)
    model = classifier(loss={"class_weights": {"x": 0.4, "y": 0.001}})
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.0)
    sums = [model.objective(model(each), each).reported for each in (one, two)]
    train(model, [one, two])
    expected = sum(each.total.item() for each in sums) / sum(each.items.item() for each in sums)
    assert float(model.trainer.callback_metrics["train/loss"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_epochs": 3}, [0, 0, 0.5, 0.5, 1, 1]),
        ({"max_epochs": 1}, [0, 0]),
        ({"max_epochs": -1, "max_steps": 4}, [0, 0.25, 0.5, 0.75]),
        ({"max_epochs": 3, "max_steps": 4}, [0, 0.25, 0.5, 0.75]),
        ({"max_epochs": 5, "max_steps": 100, "limit_train_batches": 1}, [0, 0.25, 0.5, 0.75, 1]),
    ],
    ids=str,
)
def test_progress_goes_from_nothing_to_the_end_that_comes_first(settings, expected):
    model = classifier()
    assert model.progress() == 0
    found = []
    objective = model.objective
    model.objective = lambda *arguments: found.append(model.progress()) or objective(*arguments)
    train(model, [batch([3]), batch([2])], **settings)
    assert found == pytest.approx(expected)


def step_length(**settings):
    model = classifier()
    before = torch.cat([parameter.detach().reshape(-1).clone() for parameter in model.parameters()])
    model.processor = processor()
    with torch.no_grad():
        model.head.weight.mul_(100)  # makes a large gradient
        before = torch.cat([parameter.detach().reshape(-1).clone() for parameter in model.parameters()])
    after = train(model, [batch([3, 2, 4, 3])], **settings)
    return (after - before).norm().item(), model.trainer.callback_metrics


def test_gradients_are_clipped_to_a_norm_of_one_unless_told_otherwise():
    default, logged = step_length()
    assert default == pytest.approx(1.0, abs=1e-4)
    assert logged["train/clipped"] == 1
    assert logged["train/gradient_norm"] > 1
    assert step_length(gradient_clip_val=0.5)[0] == pytest.approx(0.5, abs=1e-4)
    free, logged = step_length(gradient_clip_val=0)
    assert free == pytest.approx(float(logged["train/gradient_norm"]), rel=1e-3)
    assert logged["train/clipped"] == 0


def test_the_largest_gradient_norm_of_the_steps_is_logged_beside_their_mean():
    model = classifier()
    model.processor = processor()
    train(model, [batch([3]), batch([2, 9]), batch([1, 5, 4])])
    logged = model.trainer.callback_metrics
    mean, largest = float(logged["train/gradient_norm"]), float(logged["train/largest_gradient_norm"])
    assert mean < largest < 3 * mean


def test_clipping_by_value_bounds_each_number():
    model = classifier()
    with torch.no_grad():
        model.head.weight.mul_(100)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    train(model, [batch([3, 2])], gradient_clip_val=0.01, gradient_clip_algorithm="value")
    largest = max((a - b).abs().max().item() for a, b in zip(model.parameters(), before, strict=True))
    assert largest == pytest.approx(0.01, abs=1e-6)


def test_a_loss_that_is_not_finite_stops_with_step_ids_and_advice():
    model = classifier()
    with torch.no_grad():
        model.head.bias.fill_(float("inf"))
    with pytest.raises(
        InputError, match=r"training step 0: expected a finite loss, got nan .* ids \[7, 8\]; .*learning"
    ):
        train(model, [batch([2, 3], start=7)])


def test_metrics_count_a_repeated_sample_once_and_do_not_depend_on_the_batches():
    torch.manual_seed(0)
    rows = batch([3, 1, 2, 4, 4, 2, 1])

    def measure(cuts):
        model = classifier().eval()
        metrics = model.build_metrics()
        with torch.no_grad():
            for cut in cuts:
                part = TextBatch(*(field[cut] for field in rows))
                model.update_metrics(metrics, model(part), part)
        return {name: float(value) for metric in metrics.values() for name, value in metric.compute().items()}

    plain = measure([[0, 1, 2, 3, 4, 5, 6]])
    assert measure([[6, 2], [4], [0, 1, 3], [5]]) == pytest.approx(plain, abs=1e-6)
    assert measure([[0, 1, 2, 3], [4, 5, 6], [0, 0, 1]]) == pytest.approx(plain, abs=1e-6)


def test_checkpoints_load_without_pickled_classes_and_carry_the_processor(tmp_path):
    model = classifier()
    trainer = Trainer(**QUIET)
    trainer.fit(model, loader([batch([2, 3])]))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    stored = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert stored["hyper_parameters"]["processor"]["kind"] == "text_classification"
    loaded = SequenceClassifier.load_from_checkpoint(tmp_path / "model.ckpt").eval()
    sample = batch([4, 1])
    assert torch.equal(loaded(sample), model.eval()(sample))


def test_plateau_scheduler_watches_the_metric_of_its_mode():
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    model = classifier(lr_scheduler=lambda optimizer: plateau(optimizer, mode="max"))
    assert model.configure_optimizers()["lr_scheduler"]["monitor"] == "val/accuracy"
    model = classifier(lr_scheduler=lambda optimizer: plateau(optimizer, mode="min"))
    assert model.configure_optimizers()["lr_scheduler"]["monitor"] == "val/loss"


def test_plateau_scheduler_steps_when_there_is_a_validation():
    model = classifier()
    model.scheduler_factory = lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    trainer = Trainer(**{**QUIET, "max_epochs": 3, "check_val_every_n_epoch": 2})
    trainer.fit(model, loader([batch([3, 2])]), loader([batch([3])]))
    assert trainer.current_epoch == 3


def test_data_of_another_kind_is_refused():
    data = TaggingData(synthetic="hidden_markov", limit=50)
    with pytest.raises(InputError, match="expected a TextClassificationProcessor, got TaggingProcessor"):
        SequenceClassifier(processor=data.processor)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_any_cell_learns_the_tags_of_known_words(cell):
    data = TaggingData(synthetic="hidden_markov", limit=400)
    torch.manual_seed(0)
    model = SequenceTagger(
        processor=data.processor,
        cell=cell,
        hidden_size=16,
        words={"size": 16},
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.02),
    )
    trainer = Trainer(**{**QUIET, "max_epochs": 3})
    trainer.fit(model, datamodule=data)
    assert model.results["val"]["accuracy"] > 55  # guessing the most frequent tag has under 40


def test_each_epoch_has_batches_of_its_own():
    seen = []

    class Watched(SequenceTagger):
        def training_step(self, batch, batch_index):
            seen.append((self.current_epoch, tuple(batch.ids.tolist())))
            return super().training_step(batch, batch_index)

    data = TaggingData(synthetic="hidden_markov", limit=100)
    model = Watched(processor=data.processor, hidden_size=4, words={"size": 4})
    Trainer(**{**QUIET, "max_epochs": 3}).fit(model, datamodule=data)
    epochs = [[ids for epoch, ids in seen if epoch == number] for number in range(3)]
    assert all(sorted(sum(batches, ())) == list(range(100)) for batches in epochs)
    assert len({tuple(batches) for batches in epochs}) == 3


def test_crf_refuses_smoothing_that_it_cannot_do():
    data = TaggingData(synthetic="hidden_markov", limit=50)
    with pytest.raises(InputError, match=r"model\.loss"):
        SequenceTagger(processor=data.processor, crf=True, loss={"label_smoothing": 0.1})


def test_texts_of_several_labels_are_learnt_and_answered():
    model = SequenceClassifier(processor=processor(multi_label=True), hidden_size=4, words={"size": 3})
    rows = [{**model.processor.encode({"text": "a b", "label": ["x", "y"]}), "id": 0}]
    one = model.processor.collate(rows)
    assert one.targets.tolist() == [[1.0, 1.0, 0.0]]
    assert model.objective(model(one), one).items == 2
    assert model.classify(["a b", ""]) is not None


def test_a_long_text_is_read_to_its_end():
    model = classifier().eval()
    short, long = "a b c " * 500, "a b c " * 500 + "f f f f"
    first, second = model.answer([{"text": short}, {"text": long}])
    assert first["probability"] != second["probability"]


def test_answers_do_not_depend_on_the_batch():
    data = TextClassificationData(synthetic="topic_chains", limit=100)
    torch.manual_seed(0)
    model = SequenceClassifier(processor=data.processor, hidden_size=8, pooling=["last", "max", "attention"])
    texts = [{"text": text} for text in data.raw("test")["text"][:9]]
    alone = [answer for text in texts for answer in model.answer([text])]
    together = list(model.answer(texts, batch_size=4))
    for one, other in zip(alone, together, strict=True):
        assert one["label"] == other["label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=2e-6)
