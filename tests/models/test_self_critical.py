"""Self-critical training: the reward, its baselines, its sign, and the epochs in which it holds."""

from __future__ import annotations

import lightning
import pytest
import torch

from rnnzoo.data import CaptionData
from rnnzoo.decoding import Hypothesis, SearchOptions, search
from rnnzoo.metrics.cider import CiderD
from rnnzoo.models import Captioner
from rnnzoo.models.caption_options import SelfCriticalOptions
from rnnzoo.models.self_critical import SelfCritical
from rnnzoo.processors.captions import CaptionProcessor
from rnnzoo.processors.images import ImageOptions
from rnnzoo.text.tokenizer import UNKNOWN_ID, Tokenizer, TokenizerOptions

CORPUS = [["a red dog runs", "the red dog"], ["a blue cat sits", "a cat"], ["the bird", "a green bird sings here"]]


def tokenizer():
    return Tokenizer.train([text for texts in CORPUS for text in texts], TokenizerOptions())


def build(attention="soft", **options):
    torch.manual_seed(2)
    processor = CaptionProcessor(tokenizer=tokenizer(), images=ImageOptions(1), region_size=3)
    model = Captioner(processor=processor, attention=attention, hidden_size=8, words={"size": 6}, dropout=0.2)
    critic = SelfCritical(
        options=SelfCriticalOptions(from_epoch=0, **options), tokenizer=processor.tokenizer, corpus=CORPUS
    )
    return model, critic


def context_of(model):
    regions = torch.randn(len(CORPUS), 4, 3, generator=torch.Generator().manual_seed(0))
    return model.decoder.context(regions, None)


def hypothesis(ids, finished=True):
    return Hypothesis(tokens=ids, score=0.0, log_probability=0.0, finished=finished, weights=None)


def test_the_end_is_rewarded_and_an_unknown_word_is_not():
    _, critic = build()
    ids = critic.tokenizer.encode("a red dog runs")
    ended, cut, unknown = critic.rewards(
        [hypothesis(ids), hypothesis(ids, finished=False), hypothesis([*ids[:-1], UNKNOWN_ID])], CORPUS[:1]
    )[0].tolist()
    assert ended > cut > unknown > 0
    end = critic.tokenizer.end_id
    corpus = [[[*ids, end] for ids in critic.tokenizer.encode_many(texts)] for texts in CORPUS]
    assert ended == pytest.approx(CiderD(corpus).score([[*ids, end]], corpus[:1])[0], rel=1e-6)
    nothing = critic.rewards([hypothesis([UNKNOWN_ID], finished=False)], [["zebra"]])
    assert float(nothing) == 0.0  # though the reference is unknown too


@pytest.mark.parametrize("baseline", ["greedy", "others"])
def test_the_gradient_raises_what_is_better_than_the_baseline(baseline):
    model, critic = build(samples=3, baseline=baseline)
    decoder, context = model.decoder.eval(), context_of(model)
    settings = {"ids": [7, 8, 9], "seed": 5, "longest": 6}
    found = critic.objective(decoder, context, CORPUS, **settings)
    sampled = search(
        decoder, context, SearchOptions(method="sample", n_best=3, seed=5, max_length=6), seeds=settings["ids"]
    )
    greedy = search(decoder, context, SearchOptions(method="greedy", max_length=6))
    total, tokens = 0.0, 0
    for row, hypotheses in enumerate(sampled):
        rewards = [float(critic.rewards([each], CORPUS[row : row + 1])) for each in hypotheses]
        for place, each in enumerate(hypotheses):
            others = [reward for number, reward in enumerate(rewards) if number != place]
            base = (
                float(critic.rewards(greedy[row], CORPUS[row : row + 1])) if baseline == "greedy" else sum(others) / 2
            )
            total -= (rewards[place] - base) * each.log_probability
            tokens += len(critic.with_end(each))
    assert float(found.total.detach()) == pytest.approx(total, rel=1e-4, abs=1e-4)
    assert int(found.items) == tokens


@pytest.mark.parametrize("attention", ["none", "soft", "hard", "top_down"])
def test_it_raises_the_expected_reward(attention):
    model, critic = build(attention, samples=8)
    decoder = model.decoder.eval()
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.02)
    rewards = []
    for step in range(25):
        sampled = search(decoder, context_of(model), SearchOptions(method="sample", n_best=8, seed=99, max_length=5))
        rewards.append(float(critic.rewards([each for row in sampled for each in row], CORPUS).mean()))
        found = critic.objective(decoder, context_of(model), CORPUS, ids=[0, 1, 2], seed=step, longest=5)
        optimizer.zero_grad()
        (found.total / found.items).backward()
        optimizer.step()
    assert sum(rewards[-5:]) > 1.2 * sum(rewards[:5])


def test_what_is_improved_is_what_answers(monkeypatch):
    data = CaptionData(synthetic="scenes", limit=4, batch_size=4)
    model = Captioner(
        processor=data.processor, hidden_size=8, words={"size": 6}, image={"channels": [8, 8]}, region_size=8,
        dropout=0.5, self_critical={"from_epoch": 0, "samples": 2},
    ).train()  # fmt: skip
    batch = next(iter(data.train_dataloader()))
    model.self_critical = SelfCritical(
        options=model.self_critical_options, tokenizer=data.processor.tokenizer, corpus=batch.references
    )
    modes = [module.training for module in model.modules()]
    read = model(batch)
    assert [module.training for module in model.modules()] == modes
    assert read.reading is None
    found = model.objective(read, batch)
    assert [module.training for module in model.modules()] == modes
    found.total.backward()
    assert all(parameter.grad is not None for parameter in model.encoder.parameters() if parameter.requires_grad)
    torch.testing.assert_close(read.context.mean, model.eval().describe(batch).mean)


@pytest.mark.filterwarnings("ignore")  # Lightning warns of small data
def test_it_takes_over_from_its_epoch_and_leaves_the_model_in_training(tmp_path):
    data = CaptionData(synthetic="scenes", limit=16, batch_size=8)
    torch.manual_seed(0)
    model = Captioner(
        processor=data.processor,
        hidden_size=8,
        words={"size": 6},
        image={"channels": [8, 8]},
        search={"max_length": 6},
        self_critical={"from_epoch": 1, "samples": 2},
    )
    seen = []
    whole = model.objective

    def objective(outputs, batch):
        found = whole(outputs, batch)
        seen.append((model.current_epoch, outputs.reading is None, model.decoder.training))
        return found

    model.objective = objective
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, datamodule=data)
    assert seen == [(0, False, True)] * 2 + [(1, True, True)] * 2
    assert model.self_critical.scorer.unseen == pytest.approx(torch.tensor(16.0).log().item())
