"""The attention decoder: step by step equals whole targets, beams share a memory, padding is never seen."""

from __future__ import annotations

import pytest
import torch

from rnnzoo.batches import IGNORED
from rnnzoo.decoders.attention import AttentionDecoder, shifted
from rnnzoo.errors import InputError
from rnnzoo.layers import Recurrent, VocabularyHead, WordEmbedding
from rnnzoo.layers.attention import ATTENTIONS
from rnnzoo.layers.bridge import Bridge
from rnnzoo.state import map_state, select_rows

VOCABULARY, SIZE, HIDDEN = 9, 4, 6
KINDS = ("none", *ATTENTIONS)
CELLS = ("rnn", "lstm", "gru", "gru_reset_before")
VARIANTS = [("additive", False, False), ("dot", False, False), ("general", True, False), ("additive", True, True)]


def make(cell="lstm", kind="additive", *, feeding=False, coverage=False, layers=1, dropout=0.0):
    torch.manual_seed(3)
    encoder = Recurrent(cell=cell, input_size=SIZE, hidden_size=HIDDEN // 2, bidirectional=True, num_layers=layers)
    recurrent = Recurrent(cell=cell, input_size=SIZE + HIDDEN * feeding, hidden_size=HIDDEN, num_layers=layers)
    extra = {"coverage": True} if coverage else {}
    attention = None if kind == "none" else ATTENTIONS[kind](query_size=HIDDEN, memory_size=HIDDEN, **extra)
    embedding = WordEmbedding(vocabulary_size=VOCABULARY, size=SIZE)
    decoder = AttentionDecoder(
        embedding=embedding,
        recurrent=recurrent,
        attention=attention,
        head=VocabularyHead(input_size=HIDDEN, vocabulary_size=VOCABULARY, tied=embedding.table),
        input_feeding=feeding,
        coverage=coverage,
        dropout=dropout,
    )
    bridge = Bridge(encoder=encoder, decoder=recurrent)
    return torch.nn.ModuleDict({"encoder": encoder, "decoder": decoder, "bridge": bridge}).double().eval()


def encode(parts, sources, lengths):
    outputs, states = parts["encoder"](sources, lengths)
    return parts["decoder"].context(outputs, lengths, parts["bridge"](states))


@pytest.fixture
def sources():
    torch.manual_seed(5)
    return torch.randn(3, 5, SIZE, dtype=torch.float64), torch.tensor([5, 2, 1])


TARGETS = torch.tensor([[2, 3, 4, 8], [5, 8, IGNORED, IGNORED], [8, IGNORED, IGNORED, IGNORED]])


def by_steps(decoder, context, targets):
    state = decoder.initial_state(context)
    logits, weights = [], []
    for tokens in shifted(targets, decoder.end_id).unbind(1):
        found = decoder.step(tokens, state, context)
        state = found.state
        logits.append(found.logits)
        weights.append(found.weights)
    return torch.stack(logits, 1), None if weights[0] is None else torch.stack(weights, 1)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("kind", "feeding", "coverage"), [*VARIANTS, ("none", False, False)])
@pytest.mark.parametrize("layers", [1, 2])
def test_whole_targets_equal_single_steps(cell, kind, feeding, coverage, layers, sources):
    parts = make(cell, kind, feeding=feeding, coverage=coverage, layers=layers)
    context = encode(parts, *sources)
    hidden, weights = parts["decoder"](TARGETS, context)
    logits, step_weights = by_steps(parts["decoder"], context, TARGETS)
    valid = TARGETS >= 0
    torch.testing.assert_close(parts["decoder"].head(hidden)[valid], logits[valid])
    if kind == "none":
        assert weights is None
        assert step_weights is None
    else:
        torch.testing.assert_close(weights[valid], step_weights[valid])
        torch.testing.assert_close(weights[valid].sum(-1), torch.ones(int(valid.sum()), dtype=weights.dtype))


@pytest.mark.parametrize(("kind", "feeding", "coverage"), VARIANTS)
def test_hypotheses_of_a_sentence_share_its_memory(kind, feeding, coverage, sources):
    decoder = (parts := make("gru", kind, feeding=feeding, coverage=coverage))["decoder"]
    context = encode(parts, *sources)
    rows = torch.tensor([0, 0, 1, 1, 2, 2])
    state = select_rows(decoder.initial_state(context), rows)
    tokens = torch.tensor([2, 3, 4, 5, 6, 7])
    together = decoder.step(tokens, state, context)  # six rows, a memory of three
    copied = decoder.step(tokens, state, select_rows(context, rows))  # six rows, six memories
    torch.testing.assert_close(together.logits, copied.logits)
    torch.testing.assert_close(together.weights, copied.weights)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_padding_of_the_source_changes_nothing(kind, cell, sources):
    parts = make(cell, kind)
    inputs, lengths = sources
    hidden, _ = parts["decoder"](TARGETS, encode(parts, inputs, lengths))
    for row in range(3):
        alone = encode(parts, inputs[row : row + 1, : lengths[row]], lengths[row : row + 1])
        expected, _ = parts["decoder"](TARGETS[row : row + 1], alone)
        valid = TARGETS[row] >= 0
        torch.testing.assert_close(hidden[row, valid], expected[0, valid])
    noise = inputs.clone()
    noise[1, 2:] = 1e3
    again, _ = parts["decoder"](TARGETS, encode(parts, noise, lengths))
    torch.testing.assert_close(hidden, again)


def test_a_source_of_length_zero_yields_numbers():
    parts = make("lstm", "additive")
    context = encode(parts, torch.zeros(2, 3, SIZE, dtype=torch.float64), torch.tensor([0, 3]))
    hidden, weights = parts["decoder"](TARGETS[:2], context)
    assert hidden.isfinite().all()
    assert (weights[0] == 0).all()


@pytest.mark.parametrize("cell", CELLS)
def test_the_bridge_maps_each_field_by_itself(cell, sources):
    parts = make(cell, layers=2)
    _, states = parts["encoder"](*sources)
    first = parts["bridge"](states)
    expected = parts["decoder"].recurrent.initial_state(3)
    map_state(lambda made, template: torch.empty(0) if made.shape == template.shape else 1 / 0, first, expected)
    if cell != "lstm":
        return
    other = tuple(state._replace(cell=state.cell + 1) for state in states)  # another c: another c, and the same h
    changed = parts["bridge"](other)
    for before, after in zip(first, changed, strict=True):
        assert torch.equal(before.hidden, after.hidden)
        assert not torch.allclose(before.cell, after.cell)


def test_the_state_before_the_first_step_reaches_the_encoder(sources):
    parts = make("lstm", "none", layers=2)
    hidden, _ = parts["decoder"](TARGETS, encode(parts, *sources))
    hidden.sum().backward()
    for name, parameter in [*parts["encoder"].named_parameters(), *parts["bridge"].named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_scheduled_sampling_reads_own_guesses(sources):
    parts = make("lstm", "additive")
    decoder = parts["decoder"]
    context = encode(parts, *sources)
    own, _ = decoder(TARGETS, context, sampling=1 - 1e-12)
    guesses, state, tokens = [], decoder.initial_state(context), torch.full((3,), decoder.end_id)
    for _ in range(4):
        found = decoder.step(tokens, state, context)
        tokens, state = found.logits.argmax(-1), found.state
        guesses.append(found.logits)
    torch.testing.assert_close(decoder.head(own), torch.stack(guesses, 1))


@pytest.mark.parametrize("option", ["feeding", "coverage"])
def test_options_of_attention_need_attention(option):
    with pytest.raises(InputError, match="with attention"):
        make("lstm", "none", **{option: True})


def test_dot_attention_needs_equal_sizes():
    with pytest.raises(InputError, match="general"):
        ATTENTIONS["dot"](query_size=3, memory_size=4)
