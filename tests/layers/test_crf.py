"""The CRF against the plain sum over all tag sequences, in float64."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from rnnzoo.batches import IGNORED, UNSEEN
from rnnzoo.layers.crf import CRF
from rnnzoo.text.tags import Allowed, allowed_transitions, convert

torch.set_num_threads(1)

TAGS = 3
LENGTHS = (0, 1, 2, 4, 4)
STEPS = 4
# Tag 2 cannot begin, tag 0 cannot end, and 1 → 2 and 2 → 2 cannot be; sequences of every length are left.
SHUT = Allowed(
    start=[True, True, False],
    transitions=[[True, True, True], [True, True, False], [True, True, False]],
    end=[False, True, True],
)


def make_crf(allowed=None, num_tags=TAGS, spread=1.0, seed=0):
    torch.manual_seed(seed)
    crf = CRF(num_tags=num_tags, allowed=allowed)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_(std=spread)
    return crf


def make_batch(seed=1, lengths=LENGTHS, steps=STEPS, num_tags=TAGS):
    torch.manual_seed(seed)
    return 2 * torch.randn(len(lengths), steps, num_tags), torch.tensor(lengths)


def legal(path, allowed):
    if allowed is None or not path:
        return True
    inner = all(allowed.transitions[a][b] for a, b in itertools.pairwise(path))
    return allowed.start[path[0]] and inner and allowed.end[path[-1]]


def all_paths(crf, emissions, length, allowed=None):
    """Return every legal sequence of `length` tags and its score (float64), for emissions [T, C]."""
    start, pairs, end = crf.start.double(), crf.transitions.double(), crf.end.double()
    found = {}
    for path in itertools.product(range(emissions.shape[1]), repeat=length):
        if not legal(path, allowed):
            continue
        score = torch.zeros((), dtype=torch.float64)
        if path:
            score = start[path[0]] + end[path[-1]]
        for t, tag in enumerate(path):
            score = score + emissions[t, tag].double()
        for before, after in itertools.pairwise(path):
            score = score + pairs[before, after]
        found[path] = score
    return found


def agree(gold, path):
    return all(wanted in (tag, UNSEEN, IGNORED) for wanted, tag in zip(gold, path, strict=True))


def plain_likelihood(crf, emissions, tags, lengths, allowed=None):
    """Return -log p of each row [B] in float64; a negative tag matches everything."""
    rows = []
    for row, length in enumerate(lengths.tolist()):
        paths = all_paths(crf, emissions[row], length, allowed)
        gold = tags[row, :length].tolist()
        matching = [s for path, s in paths.items() if agree(gold, path)]
        rows.append(torch.logsumexp(torch.stack(list(paths.values())), 0) - torch.logsumexp(torch.stack(matching), 0))
    return torch.stack(rows)


def legal_tags(lengths, allowed, steps=STEPS, num_tags=TAGS, seed=3):
    """Draw legal tags [B, T], IGNORED past each length."""
    generator = torch.Generator().manual_seed(seed)
    tags = torch.full((len(lengths), steps), IGNORED)
    for row, length in enumerate(lengths):
        paths = [p for p in itertools.product(range(num_tags), repeat=length) if legal(p, allowed)]
        pick = int(torch.randint(len(paths), (), generator=generator))
        tags[row, :length] = torch.tensor(paths[pick], dtype=torch.long)
    return tags


@pytest.fixture(params=[None, SHUT], ids=["all", "restricted"])
def allowed(request):
    return request.param


@pytest.mark.parametrize("seed", range(4))
def test_likelihood_is_that_of_the_plain_sum(allowed, seed):
    crf = make_crf(allowed, seed=seed)
    emissions, lengths = make_batch(seed + 10)
    tags = legal_tags(LENGTHS, allowed, seed=seed)
    found = crf.negative_log_likelihood(emissions, tags, lengths)
    assert found.dtype == torch.float32
    assert_close(found.double(), plain_likelihood(crf, emissions, tags, lengths, allowed), atol=1e-5, rtol=1e-5)
    assert found[0] == 0


def test_probabilities_of_all_sequences_sum_to_one():
    crf = make_crf()
    paths = torch.tensor(list(itertools.product(range(TAGS), repeat=3)))
    emissions = make_batch()[0][4:, :3].expand(len(paths), -1, -1)
    found = crf.negative_log_likelihood(emissions, paths, torch.full((len(paths),), 3))
    assert_close((-found).exp().sum(), torch.tensor(1.0))


@pytest.mark.parametrize("hidden", [[], [(3, 1)], [(1, 0), (3, 0), (3, 3), (4, 1), (4, 2)]], ids=len)
def test_gradients_are_those_of_the_plain_sum(allowed, hidden):
    crf = make_crf(allowed)
    emissions, lengths = make_batch()
    emissions.requires_grad_()
    tags = legal_tags(LENGTHS, allowed)
    for row, step in hidden:
        tags[row, step] = UNSEEN
    leaves = [emissions, *crf.parameters()]
    found = torch.autograd.grad(crf.negative_log_likelihood(emissions, tags, lengths).sum(), leaves)
    expected = torch.autograd.grad(plain_likelihood(crf, emissions, tags, lengths, allowed).sum(), leaves)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("negative", [UNSEEN, IGNORED])
def test_unknown_tags_are_summed_over(allowed, negative):
    crf = make_crf(allowed)
    emissions, lengths = make_batch()
    for hidden in itertools.product([False, True], repeat=STEPS):
        tags = legal_tags(LENGTHS, allowed)
        tags[torch.tensor(hidden).expand_as(tags)] = negative
        found = crf.negative_log_likelihood(emissions, tags, lengths).double()
        assert_close(found, plain_likelihood(crf, emissions, tags, lengths, allowed), atol=2e-5, rtol=1e-5)
        assert (found > -1e-5).all()


def test_a_row_with_unknown_tags_leaves_the_other_rows_as_they_are(allowed):
    crf = make_crf(allowed)
    emissions, lengths = make_batch()
    tags = legal_tags(LENGTHS, allowed)
    complete = crf.negative_log_likelihood(emissions, tags, lengths)
    tags[4, 1] = UNSEEN
    mixed = crf.negative_log_likelihood(emissions, tags, lengths)
    assert_close(mixed[:4], complete[:4], atol=2e-5, rtol=1e-5)
    assert mixed[4] < complete[4]


def test_gold_tags_that_cannot_be_give_a_large_finite_loss_and_finite_gradients():
    crf = make_crf(SHUT)
    emissions, _ = make_batch(lengths=(3,))
    emissions.requires_grad_()
    loss = crf.negative_log_likelihood(emissions, torch.tensor([[2, 2, 0, IGNORED]]), torch.tensor([3]))
    loss.sum().backward()
    assert 1e3 < float(loss.detach()) < float("inf")
    assert emissions.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in crf.parameters())


@pytest.mark.parametrize("seed", range(10))
def test_decoding_finds_the_best_sequence(allowed, seed):
    crf = make_crf(allowed, seed=seed)
    emissions, lengths = make_batch(seed + 50)
    found = crf.decode(emissions, lengths)
    assert found.dtype == torch.long
    for row, length in enumerate(LENGTHS):
        with torch.no_grad():
            paths = all_paths(crf, emissions[row], length, allowed)
        best = max(paths, key=paths.__getitem__)
        assert found[row].tolist() == [*best, *[IGNORED] * (STEPS - length)]


def test_marginals_are_those_of_the_plain_sum(allowed):
    crf = make_crf(allowed)
    emissions, lengths = make_batch()
    with torch.no_grad():
        found = crf.marginals(emissions, lengths)
    expected = torch.zeros(len(LENGTHS), STEPS, TAGS, dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        paths = all_paths(crf, emissions[row], length, allowed)
        total = torch.logsumexp(torch.stack(list(paths.values())), 0)
        for path, score in paths.items():
            for t, tag in enumerate(path):
                expected[row, t, tag] += (score - total).exp().detach()
    assert not found.requires_grad
    assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    assert (found[0] == 0).all()
    assert (found[1, 1:] == 0).all()


def test_marginals_leave_no_gradients_behind():
    crf = make_crf()
    emissions, lengths = make_batch()
    emissions.requires_grad_()
    crf.marginals(emissions, lengths)
    assert emissions.grad is None
    assert all(parameter.grad is None for parameter in crf.parameters())


def test_marginals_in_inference_mode_as_the_trainer_predicts():
    crf = make_crf()
    emissions, lengths = make_batch()
    expected = crf.marginals(emissions, lengths)
    with torch.inference_mode():
        found = crf.marginals(emissions.clone(), lengths.clone())
        assert_close(found.clone(), expected.clone())


@pytest.mark.parametrize("scheme", ["bio", "iob1", "bioes"])
def test_forbidden_tags_are_never_decoded(scheme):
    prefixes = {"bio": "BI", "iob1": "BI", "bioes": "BIES"}[scheme]
    names = ["O", *(f"{prefix}-{kind}" for kind in ("X", "Y") for prefix in prefixes)]
    crf = make_crf(allowed_transitions(names, scheme), num_tags=len(names), spread=5.0)
    torch.manual_seed(0)
    lengths = torch.randint(0, 9, (300,))
    for scale in (0.0, 1.0, 100.0):
        found = crf.decode(scale * torch.randn(300, 8, len(names)), lengths)
        for row, length in zip(found.tolist(), lengths.tolist(), strict=True):
            tags = [names[tag] for tag in row[:length]]
            assert convert(tags, scheme) == tags
            assert row[length:] == [IGNORED] * (8 - length)


def test_forbidden_tags_have_no_probability():
    names = ["O", "B-X", "I-X", "E-X", "S-X"]
    crf = make_crf(allowed_transitions(names, "bioes"), num_tags=5)
    emissions, lengths = make_batch(num_tags=5, lengths=(1, 2, 4))
    found = crf.marginals(emissions, lengths)
    assert (found[0, 0, 1:4] == 0).all()  # a span of one word is S-, so B-, I- and E- cannot stand alone
    assert (found[:, 0, 2:4] == 0).all()
    assert (found[1, 1, 1:3] == 0).all()
    assert_close(found.sum(2), (torch.arange(4) < lengths.unsqueeze(1)).float())


def test_allowed_can_be_given_as_tensors():
    crf = make_crf(SHUT)
    as_tensors = make_crf(Allowed(*map(torch.tensor, SHUT)))
    emissions, lengths = make_batch()
    assert torch.equal(crf.decode(emissions, lengths), as_tensors.decode(emissions, lengths))


@pytest.mark.parametrize("hidden", [False, True])
def test_padding_has_no_influence(allowed, hidden):
    crf = make_crf(allowed)
    emissions, lengths = make_batch()
    tags = legal_tags(LENGTHS, allowed)
    if hidden:
        tags[3, 1] = UNSEEN
    padding = torch.arange(STEPS) >= lengths.unsqueeze(1)
    results = []
    for seed in range(3):
        torch.manual_seed(seed)
        garbage = torch.where(padding.unsqueeze(2), 1e3 * torch.randn_like(emissions), emissions).requires_grad_()
        choices = torch.tensor([IGNORED, UNSEEN, 0, 1, 2])
        padded = torch.where(padding, choices[torch.randint(5, tags.shape)], tags)
        loss = crf.negative_log_likelihood(garbage, padded, lengths)
        (gradient,) = torch.autograd.grad(loss.sum(), garbage)
        assert (gradient[padding] == 0).all()
        results.append([loss, gradient, crf.decode(garbage, lengths), crf.marginals(garbage, lengths)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_wider_padding_has_no_influence(allowed):
    crf = make_crf(allowed)
    emissions, lengths = make_batch()
    tags = legal_tags(LENGTHS, allowed)
    wide = torch.cat([emissions, torch.ones(len(LENGTHS), 3, TAGS)], dim=1)
    wide_tags = torch.cat([tags, torch.full((len(LENGTHS), 3), IGNORED)], dim=1)
    assert_close(
        crf.negative_log_likelihood(wide, wide_tags, lengths), crf.negative_log_likelihood(emissions, tags, lengths)
    )
    assert torch.equal(crf.decode(wide, lengths)[:, :STEPS], crf.decode(emissions, lengths))
    assert_close(crf.marginals(wide, lengths)[:, :STEPS], crf.marginals(emissions, lengths))


@pytest.mark.parametrize("autocast", [False, True])
def test_low_precision_emissions_are_summed_in_float32(allowed, autocast):
    crf = make_crf(allowed)
    emissions, lengths = make_batch()
    low, tags = emissions.bfloat16(), legal_tags(LENGTHS, allowed)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = crf.negative_log_likelihood(low, tags, lengths), crf.decode(low, lengths), crf.marginals(low, lengths)
    assert found[0].dtype == found[2].dtype == torch.float32
    full = low.float()
    assert torch.equal(found[0], crf.negative_log_likelihood(full, tags, lengths))
    assert torch.equal(found[1], crf.decode(full, lengths))
    assert torch.equal(found[2], crf.marginals(full, lengths))


def test_a_long_row_of_low_precision_keeps_its_accuracy():
    crf = make_crf()
    emissions, lengths = make_batch(lengths=(500,), steps=500)
    low, tags = emissions.bfloat16(), torch.randint(TAGS, (1, 500))
    found = crf.negative_log_likelihood(low, tags, lengths)
    double = CRF(num_tags=TAGS)
    double.load_state_dict(crf.state_dict())
    score = double.start.double() + low[:, 0].double()
    gold = double.start[tags[0, 0]].double() + low[0, 0, tags[0, 0]].double() + double.end[tags[0, -1]].double()
    for t in range(1, 500):
        score = torch.logsumexp(score.unsqueeze(2) + double.transitions.double(), 1) + low[:, t].double()
        gold = gold + double.transitions[tags[0, t - 1], tags[0, t]].double() + low[0, t, tags[0, t]].double()
    assert_close(found.double(), torch.logsumexp(score + double.end.double(), 1) - gold, rtol=1e-5, atol=0)


@pytest.mark.parametrize("hidden", [0, 0.2], ids=["known", "some unknown"])
def test_the_loss_of_a_very_long_row_keeps_its_digits(hidden):
    crf, steps = make_crf(num_tags=5), 4000
    tags = torch.randint(5, (2, steps))
    emissions = torch.randn(2, steps, 5) + 12 * torch.nn.functional.one_hot(tags, 5)
    tags = torch.where(torch.rand(tags.shape) < hidden, UNSEEN, tags)
    lengths = torch.tensor([steps, steps - 5])
    found = crf.negative_log_likelihood(emissions, tags, lengths)
    expected = crf.double().negative_log_likelihood(emissions.double(), tags, lengths)
    assert expected.dtype == torch.float64
    assert_close(found.double(), expected, rtol=2e-3, atol=0.0)


def test_batches_without_steps():
    crf = make_crf(SHUT)
    emissions, lengths = torch.zeros(2, 0, TAGS), torch.zeros(2, dtype=torch.long)
    tags = torch.zeros(2, 0, dtype=torch.long)
    assert crf.negative_log_likelihood(emissions, tags, lengths).tolist() == [0, 0]
    assert crf.decode(emissions, lengths).shape == (2, 0)


def test_marginals_of_a_batch_without_steps():
    assert make_crf().marginals(torch.zeros(2, 0, TAGS), torch.zeros(2, dtype=torch.long)).shape == (2, 0, TAGS)


def test_what_is_allowed_is_not_among_the_weights():
    assert sorted(make_crf(SHUT).state_dict()) == ["end", "start", "transitions"]
