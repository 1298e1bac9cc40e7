"""Caption decoders: steps, whole captions and searches agree; padding never changes a number."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.functional import one_hot

from rnnzoo.batches import IGNORED
from rnnzoo.decoders.hard_attention import HardChoice, HardOptions
from rnnzoo.decoders.visual import PlainDecoder
from rnnzoo.decoders.visual_attention import GazeDecoder, TopDownDecoder
from rnnzoo.decoding import SearchOptions, score, search
from rnnzoo.errors import InputError
from rnnzoo.layers import Recurrent, VocabularyHead, WordEmbedding
from rnnzoo.layers.attention import AdditiveAttention
from rnnzoo.state import select_rows

KINDS = ("state", "input", "soft", "plain_soft", "hard", "expected", "gumbel", "top_down")
ATTENDING = KINDS[2:]
CELLS = ("rnn", "lstm", "gru")
VOCABULARY, EMBEDDING, HIDDEN, MEMORY, PLACES = 7, 3, 4, 5, 3
END = VOCABULARY - 1
HARD = {
    "hard": HardOptions(expected_share=0.0),
    "expected": HardOptions(evaluation="expected"),
    "gumbel": HardOptions(estimator="gumbel", expected_share=0.0),
}
TARGETS = torch.tensor(
    [[2, 3, END, IGNORED], [END, IGNORED, IGNORED, IGNORED], [5, 2, 2, END], [4, END] + [IGNORED] * 2]
)


def build(kind, cell="lstm", dropout=0.0, seed=0):
    """Return a decoder in evaluation mode."""
    torch.manual_seed(seed)
    embedding = WordEmbedding(vocabulary_size=VOCABULARY, size=EMBEDDING)

    def layers(size):
        return Recurrent(cell=cell, input_size=size, hidden_size=HIDDEN)

    def head(size):
        made = VocabularyHead(input_size=size, vocabulary_size=VOCABULARY)
        torch.nn.init.normal_(made.weight, std=2.0)  # so that greedy captions differ
        return made

    common = {"embedding": embedding, "dropout": dropout}
    attention = AdditiveAttention(query_size=HIDDEN, memory_size=MEMORY)
    if kind in ("state", "input"):
        decoder = PlainDecoder(
            recurrent=layers(EMBEDDING), head=head(HIDDEN), memory_size=MEMORY, image_as=kind, **common
        )
    elif kind == "top_down":
        decoder = TopDownDecoder(
            first=layers(HIDDEN + MEMORY + EMBEDDING),
            second=layers(MEMORY + HIDDEN),
            attention=attention,
            head=head(HIDDEN),
            **common,
        )
    else:
        deep = kind != "plain_soft"
        decoder = GazeDecoder(
            recurrent=layers(EMBEDDING + MEMORY),
            attention=attention,
            head=head(EMBEDDING if deep else HIDDEN),
            choice=HardChoice(HARD[kind]) if kind in HARD else None,
            gate=deep,
            deep_output=deep,
            **common,
        )
    return decoder.eval()


def regions(count=4, places=PLACES, seed=1):
    return torch.randn(count, places, MEMORY, generator=torch.Generator().manual_seed(seed))


COUNTS = torch.tensor([3, 1, 2, 3])


def log_likelihoods(decoder, targets, context):
    return decoder.head.log_likelihoods(decoder(targets, context).hidden, targets)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


# Whole captions, steps and searches


@pytest.mark.parametrize("cell", CELLS)
def test_whole_captions_equal_steps(kind, cell):
    decoder = build(kind, cell)
    context = decoder.context(regions(), COUNTS)
    with torch.no_grad():
        whole = log_likelihoods(decoder, TARGETS, context).sum(1)
        torch.testing.assert_close(whole, score(decoder, context, TARGETS), atol=1e-5, rtol=1e-5)


def test_gradients_of_whole_captions_equal_those_of_steps(kind):
    decoder = build(kind).double()
    gradients = []
    for log_probability in (
        lambda *args: log_likelihoods(decoder, args[1], args[0]).sum(1),
        lambda *a: score(decoder, *a),
    ):
        decoder.zero_grad()
        log_probability(decoder.context(regions().double(), COUNTS), TARGETS).sum().backward()
        gradients.append({name: each.grad for name, each in decoder.named_parameters()})
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name])


def test_a_search_scores_as_the_decoder_does_and_greedy_is_a_beam_of_one(kind):
    decoder = build(kind)
    context = decoder.context(regions(), COUNTS)
    longest = {"max_length": 6, "length_penalty": "none"}
    greedy = search(decoder, context, SearchOptions(method="greedy", **longest))
    one = search(decoder, context, SearchOptions(beam_size=1, **longest))
    assert [row[0].tokens for row in greedy] == [row[0].tokens for row in one]
    for row, best in enumerate(search(decoder, context, SearchOptions(beam_size=3, n_best=2, **longest))):
        for each in best:
            targets = torch.tensor([[*each.tokens, *[END] * each.finished]])
            own = log_likelihoods(decoder, targets, select_rows(context, torch.tensor([row]))).sum()
            assert each.log_probability == pytest.approx(float(own.detach()), abs=1e-4)


def test_rows_of_one_image_are_grouped(kind):
    decoder = build(kind)
    context = decoder.context(regions(), COUNTS)
    copied = select_rows(context, torch.arange(4).repeat_interleave(3))
    state = decoder.initial_state(copied)
    tokens = torch.arange(12) % VOCABULARY
    grouped, apart = (decoder.step(tokens, state, each) for each in (context, copied))
    torch.testing.assert_close(grouped.logits, apart.logits)


# Padding


def test_a_caption_alone_is_as_in_a_batch(kind):
    decoder = build(kind)
    context = decoder.context(regions(), COUNTS)
    together = log_likelihoods(decoder, TARGETS, context)
    for row, length in enumerate((TARGETS >= 0).sum(1).tolist()):
        alone = log_likelihoods(decoder, TARGETS[row : row + 1, :length], select_rows(context, torch.tensor([row])))
        torch.testing.assert_close(alone[0], together[row, :length])
        assert (together[row, length:] == 0).all()


def test_padded_regions_change_nothing(kind):
    decoder = build(kind)
    exact = [decoder.context(regions()[row : row + 1, :count], None) for row, count in enumerate(COUNTS.tolist())]
    garbage = torch.cat([regions(), torch.full((4, 2, MEMORY), 1e4)], dim=1)
    garbage[torch.arange(5) >= COUNTS.unsqueeze(1)] = float("nan") if kind in ("state", "input") else 1e4
    padded = log_likelihoods(decoder, TARGETS, decoder.context(garbage, COUNTS))
    alone = torch.cat([log_likelihoods(decoder, TARGETS[row : row + 1], each) for row, each in enumerate(exact)])
    torch.testing.assert_close(padded, alone)


@pytest.mark.parametrize("kind", ATTENDING)
def test_weights_sum_to_one_on_steps_and_are_zero_on_padding(kind):
    decoder = build(kind)
    weights = decoder(TARGETS, decoder.context(regions(), COUNTS)).weights  # [C, T, L]
    torch.testing.assert_close(weights.sum(-1), (TARGETS >= 0).float())
    assert (weights[torch.arange(4), :, COUNTS.clamp(max=2)][COUNTS < 3] == 0).all()


def test_an_image_without_regions_is_described_without_nan(kind):
    decoder = build(kind)
    values = decoder.context(regions(), torch.zeros(4, dtype=torch.int64))
    assert log_likelihoods(decoder, TARGETS, values).isfinite().all()
    decoder.train()
    assert log_likelihoods(decoder, TARGETS, values).isfinite().all()


# The equations


def test_soft_attention_follows_the_paper():
    decoder = build("soft", "lstm")
    grid = regions(1)
    state = decoder.initial_state(decoder.context(grid, None)).layers[0]
    mean = grid[0].mean(0)
    for field, linear in decoder.start.maps[0].items():
        torch.testing.assert_close(getattr(state, field)[0], torch.tanh(linear.weight @ mean + linear.bias))
    hidden, (cell, *_) = state.hidden[0], decoder.recurrent.cells
    match = decoder.attention
    scores = [
        match.vector.weight[0]
        @ torch.tanh(match.query.weight @ hidden + match.query.bias + match.memory.weight @ place)
        for place in grid[0]
    ]
    weights = torch.softmax(torch.stack(scores), 0)
    gate = torch.sigmoid(decoder.gate.weight[0] @ hidden + decoder.gate.bias)
    found = gate * (weights.unsqueeze(1) * grid[0]).sum(0)
    word = decoder.embedding.table.weight[4]
    after, _ = cell.step(cell.project(torch.cat([word, found]).unsqueeze(0)), state)
    deep = decoder.hidden_output.weight @ after[0] + decoder.hidden_output.bias + decoder.place_output.weight @ found
    logits = decoder.head.weight @ torch.tanh(word + deep) + decoder.head.bias
    step = decoder.step(
        torch.tensor([4]), decoder.initial_state(decoder.context(grid, None)), decoder.context(grid, None)
    )
    torch.testing.assert_close(step.logits[0], logits)
    torch.testing.assert_close(step.weights[0], weights)


def test_top_down_attention_follows_the_paper():
    decoder = build("top_down", "gru")
    grid = regions(1)
    context = decoder.context(grid, None)
    state = decoder.step(torch.tensor([END]), decoder.initial_state(context), context).state
    before = state.language[0].hidden
    word = decoder.embedding.table.weight[[3]]
    query, _ = decoder.first.step(torch.cat([before, grid.mean(1), word], dim=1), state.attention)
    found, weights = decoder.attention(query.unsqueeze(1), context.memory)
    hidden, _ = decoder.second.step(torch.cat([found[:, 0], query], dim=1), state.language)
    step = decoder.step(torch.tensor([3]), state, context)
    torch.testing.assert_close(step.logits, decoder.head(hidden))
    torch.testing.assert_close(step.weights, weights[:, 0])


def test_the_image_is_the_first_input_or_the_first_state():
    read, start = build("input"), build("state")
    context = read.context(regions(), None)
    first = read.recurrent.step(read.image(context.mean), read.recurrent.initial_state(4))[1]
    torch.testing.assert_close(read.initial_state(context)[0].cell, first[0].cell)
    torch.testing.assert_close(start.initial_state(context)[0].cell, start.start(context.mean)[0].cell)


def test_a_decoder_that_reads_its_own_guesses_reads_what_it_would_generate(kind):
    decoder = build(kind)
    context = decoder.context(regions(), COUNTS)
    fixed = torch.full((4, 5), 2)
    read = decoder(fixed, context, sampling=1.0).hidden
    own = decoder.head(read).argmax(-1)  # [C, T]
    torch.testing.assert_close(read, decoder(own, context).hidden)


@pytest.mark.parametrize("cell", CELLS)
def test_training_reaches_every_parameter_and_lowers_the_loss(kind, cell):
    decoder = build(kind, cell, dropout=0.1)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.03)
    losses = []
    for _ in range(25):
        decoder.train()
        reading = decoder(TARGETS, decoder.context(regions(), COUNTS))
        loss = decoder.head.loss(reading.hidden, TARGETS)
        if reading.places is not None:
            logs = decoder.head.log_likelihoods(reading.hidden, TARGETS).detach()
            loss = loss + decoder.choice.regulariser(reading.weights, reading.places, logs, TARGETS >= 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decoder.eval()
        with torch.no_grad():
            losses.append(-float(log_likelihoods(decoder, TARGETS, decoder.context(regions(), COUNTS)).sum()))
    assert all(parameter.grad is not None for parameter in decoder.parameters())
    assert losses[-1] < 0.7 * losses[0]


# Hard attention


def test_reinforce_is_the_gradient_of_the_bound_in_expectation():
    for credit, baseline in itertools.product(("sentence", "rest"), (-0.2, -1.7)):
        torch.manual_seed(3)
        decoder = build("hard", "gru").double()
        decoder.choice.options = HardOptions(credit=credit, expected_share=0.0, entropy_weight=0.0)
        targets = torch.tensor([[3, END]])
        context = decoder.context(regions(1, places=2).double() * 3, None)
        estimate = []
        bound = torch.zeros((), dtype=torch.float64)
        for path in itertools.product(range(2), repeat=2):  # all paths over 2 places in 2 steps
            places = torch.tensor([path])
            reading = decoder(targets, context, places=places)
            logs = decoder.head.log_likelihoods(reading.hidden, targets)
            probability = reading.weights.gather(-1, places.unsqueeze(-1)).prod()
            bound = bound + probability * logs.sum()
            decoder.choice.baseline.fill_(baseline)
            surrogate = -logs.sum() + decoder.choice.regulariser(reading.weights, places, logs, targets >= 0)
            estimate.append(probability.detach() * surrogate)
        parameters = list(decoder.parameters())
        exact = torch.autograd.grad(-bound, parameters, retain_graph=True, allow_unused=True)
        found = torch.autograd.grad(torch.stack(estimate).sum(), parameters, allow_unused=True)
        for one, other in zip(exact, found, strict=True):
            torch.testing.assert_close(one, other)


def test_the_entropy_bonus_and_the_moving_baseline():
    choice = HardChoice(HardOptions(reward_weight=0.0, entropy_weight=0.5))
    weights = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.0, 0.0]]])
    valid = torch.tensor([[True, True], [True, False]])
    logs = torch.tensor([[-1.0, -2.0], [-5.0, 0.0]])
    found = choice.regulariser(weights, torch.full((2, 2), -1), logs, valid)
    assert float(found) == pytest.approx(-0.5 * 2 * torch.log(torch.tensor(2.0)).item())
    assert float(choice.baseline) == -4.0  # the first batch is its own baseline
    choice.regulariser(weights, torch.full((2, 2), -1), logs + 1, valid)
    assert float(choice.baseline) == pytest.approx(0.9 * -4.0 + 0.1 * -2.0)
    choice.eval().regulariser(weights, torch.full((2, 2), -1), logs, valid)
    assert float(choice.baseline) == pytest.approx(-3.8)


def test_a_caption_that_takes_weighted_means_is_soft_and_has_no_reward():
    hard, soft = build("hard"), build("soft")
    hard.choice.options = HardOptions(expected_share=0.999999)
    soft.load_state_dict({name: value for name, value in hard.state_dict().items() if "choice" not in name})
    reading = hard.train()(TARGETS, hard.context(regions(), COUNTS))
    torch.testing.assert_close(reading.hidden, soft(TARGETS, soft.context(regions(), COUNTS)).hidden)
    assert (reading.places == -1).all()


def test_places_are_drawn_with_their_weights_in_training_and_not_in_evaluation():
    for kind in ("hard", "gumbel"):
        decoder = build(kind)
        rows, weights = 4000, torch.tensor([0.6, 0.0, 0.3, 0.1])
        given = (weights.expand(rows, -1), torch.zeros(rows, dtype=torch.bool), None)
        used, places = decoder.choice(*given)
        assert (places == 0).all()
        assert torch.equal(used, one_hot(places, 4).float())
        torch.manual_seed(0)
        used, places = decoder.choice.train()(*given)
        shares = places.bincount(minlength=4) / rows
        torch.testing.assert_close(shares, weights, atol=0.03, rtol=0)
        assert shares[1] == 0
        torch.testing.assert_close(used.detach(), one_hot(places, 4).float())


def test_evaluation_takes_the_largest_weight_or_the_mean():
    sure, mean, soft = build("hard"), build("expected"), build("soft")
    state = {name: value for name, value in sure.state_dict().items() if "choice" not in name}
    mean.load_state_dict(state, strict=False)
    soft.load_state_dict(state)
    context = sure.context(regions(), COUNTS)
    first, again = (sure(TARGETS, context) for _ in range(2))
    assert torch.equal(first.hidden, again.hidden)
    assert torch.equal(first.places[TARGETS >= 0], first.weights.argmax(-1)[TARGETS >= 0])
    torch.testing.assert_close(mean(TARGETS, context).hidden, soft(TARGETS, context).hidden)


def test_the_straight_through_gradient_is_that_of_the_softmax():
    choice = HardChoice(HardOptions(estimator="gumbel", temperature=0.7, expected_share=0.0))
    scores = torch.randn(5, 3, requires_grad=True)
    values = torch.randn(3)
    torch.manual_seed(4)
    used, _ = choice(scores.softmax(-1), torch.zeros(5, dtype=torch.bool), None)
    (used @ values).sum().backward()
    torch.manual_seed(4)
    noise = -torch.empty(5, 3).exponential_().log()
    again = scores.detach().requires_grad_()
    (((again.log_softmax(-1) + noise) / 0.7).softmax(-1) @ values).sum().backward()
    torch.testing.assert_close(scores.grad, again.grad)


@pytest.mark.parametrize(
    "wrong",
    [{"estimator": "x"}, {"credit": "x"}, {"evaluation": "x"}, {"expected_share": 1.0}, {"temperature": 0.0}],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=f"model.hard.{next(iter(wrong))}"):
        HardOptions(**wrong)
