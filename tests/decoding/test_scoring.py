"""Scores of given targets, and ensembles."""

import pytest
import torch
from toy_decoder import END, SIZE, Oracle, ToyDecoder, make_context

from rnnzoo.batches import IGNORED
from rnnzoo.decoding import Ensemble, SearchOptions, score, search
from rnnzoo.errors import InputError


def make_targets():
    return torch.tensor([[1, 2, 0, END], [END, *[IGNORED] * 3], [3, 3, IGNORED, IGNORED], [IGNORED] * 4])


def test_scores_are_sums_of_log_probabilities():
    decoder, context, targets = ToyDecoder(), make_context(4), make_targets()
    expected = []
    for row, ids in enumerate(targets.tolist()):
        tokens = [each for each in ids if each != IGNORED]
        expected.append(Oracle(decoder, context, row).log_probability(tokens, finished=False))
    assert score(decoder, context, targets).tolist() == pytest.approx(expected, abs=1e-9)
    wider = torch.cat([targets, torch.full((4, 3), IGNORED)], 1)
    assert torch.equal(score(decoder, context, wider), score(decoder, context, targets))


def test_scores_of_nothing():
    assert score(ToyDecoder(), make_context(3), torch.zeros(3, 0, dtype=torch.long)).tolist() == [0.0] * 3
    assert score(ToyDecoder(), make_context(0), torch.zeros(0, 3, dtype=torch.long)).tolist() == []


def test_all_continuations_together_have_probability_one():
    decoder, context = ToyDecoder(), make_context(1)
    ids = torch.cartesian_prod(torch.arange(SIZE - 1), torch.arange(SIZE))
    ids = torch.cat([ids, torch.tensor([[END, IGNORED]])])
    total = sum(float(score(decoder, context, each.unsqueeze(0)).exp()) for each in ids)
    assert total == pytest.approx(1.0, abs=1e-9)


def test_bad_targets_are_refused():
    with pytest.raises(InputError, match="targets: expected ids below 5, got 5"):
        score(ToyDecoder(), make_context(1), torch.tensor([[1, SIZE]]))
    with pytest.raises(InputError, match="targets: expected 2 rows, got 1 rows"):
        score(ToyDecoder(), make_context(2), torch.tensor([[1]]))


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
def test_an_ensemble_of_equals_is_one_of_them(method):
    decoder, context = ToyDecoder(), make_context(5)
    options = SearchOptions(method=method, max_length=8, coverage_penalty=0.1)
    single = search(decoder, context, options)
    for count in (1, 2, 3):
        both = search(Ensemble([decoder] * count), (context,) * count, options)
        for (found,), (expected,) in zip(both, single, strict=True):
            assert (found.tokens, found.finished) == (expected.tokens, expected.finished)
            assert found.score == pytest.approx(expected.score, abs=1e-9)
            torch.testing.assert_close(found.weights, expected.weights)


def test_an_ensemble_takes_the_mean_of_probabilities():
    decoders, contexts = [ToyDecoder(seed=1), ToyDecoder(seed=2)], (make_context(2, seed=3), make_context(2, seed=4))
    ensemble, tokens = Ensemble(decoders), [1, 3, 0]
    oracles = [Oracle(each, context, 0) for each, context in zip(decoders, contexts, strict=True)]
    total, weights = 0.0, []
    for place, token in enumerate([*tokens, END]):
        steps = [oracle.after(tokens[:place]) for oracle in oracles]
        total += torch.tensor([step[0][token] for step in steps], dtype=torch.float64).exp().mean().log().item()
        weights.append(torch.tensor([step[1] for step in steps], dtype=torch.float64).mean(0))
    targets = torch.tensor([[*tokens, END]] * 2)
    assert float(score(ensemble, contexts, targets)[0]) == pytest.approx(total, abs=1e-9)
    (found, _) = search(ensemble, contexts, SearchOptions(max_length=3), prefixes=[tokens] * 2)
    torch.testing.assert_close(found[0].weights[:3], torch.stack(weights)[:3])
    best = search(ensemble, contexts, SearchOptions(beam_size=400, n_best=3, max_length=4))
    for row, found in enumerate(best):
        expected = Oracle(Ensemble(decoders), contexts, row).everything(SearchOptions(max_length=4))
        assert [each.tokens for each in found] == [tokens for _, tokens in expected[:3]]


def test_attention_of_an_ensemble_needs_that_of_all():
    decoders = [ToyDecoder(), ToyDecoder(attention=False)]
    ((found,),) = search(Ensemble(decoders), (make_context(1),) * 2, SearchOptions(max_length=4))
    assert found.weights is None


def test_bad_ensembles_are_refused():
    with pytest.raises(InputError, match=r"ensemble: expected models of one vocabulary, got vocabularies of \[5, 4\]"):
        Ensemble([ToyDecoder(), ToyDecoder(size=4)])
    with pytest.raises(InputError, match="ensemble"):
        Ensemble([])
