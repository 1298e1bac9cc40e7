"""The network without recurrence."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from rnnzoo.errors import InputError
from rnnzoo.layers.feedforward import FeedForward

torch.set_num_threads(1)


@pytest.mark.parametrize(("name", "function"), [("relu", F.relu), ("tanh", torch.tanh), ("gelu", F.gelu)])
def test_outputs_are_those_of_the_formula(name, function):
    network = FeedForward(input_size=4, hidden_sizes=[5, 3], output_size=2, activation=name)
    first, second, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    inputs = torch.randn(6, 4)
    hidden = function(inputs @ first.weight.T + first.bias)
    hidden = function(hidden @ second.weight.T + second.bias)
    assert_close(network(inputs), hidden @ last.weight.T + last.bias)


def test_without_hidden_layers_it_is_linear():
    network = FeedForward(input_size=3, hidden_sizes=[], output_size=2, dropout=0.9)
    one, other = torch.randn(2, 5, 3)
    bias = network(torch.zeros(3))
    assert_close(network(one + 2 * other) - bias, network(one) - bias + 2 * (network(other) - bias))
    assert [tuple(parameter.shape) for parameter in network.parameters()] == [(2, 3), (2,)]


def test_sizes_of_the_parameters():
    shapes = [tuple(p.shape) for p in FeedForward(input_size=4, hidden_sizes=(5, 3), output_size=2).parameters()]
    assert shapes == [(5, 4), (5,), (3, 5), (3,), (2, 3), (2,)]


@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3), (2, 0, 5)])
def test_any_axes_may_stand_before_the_last(shape):
    network = FeedForward(input_size=4, hidden_sizes=[5], output_size=2)
    inputs = torch.randn(*shape, 4)
    found = network(inputs)
    assert found.shape == (*shape, 2)
    assert_close(found.reshape(-1, 2), network(inputs.reshape(-1, 4)))


def test_dropout_acts_after_each_hidden_layer_in_training_alone():
    torch.manual_seed(0)
    network = FeedForward(input_size=3, hidden_sizes=[1000, 1000], output_size=1, dropout=0.3)
    seen = []
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda _, given, output: seen.append((given[0], output)))
    inputs = torch.rand(4, 3)
    network(inputs)
    assert len(seen) == 2
    for given, output in seen:
        dropped = (output == 0) & (given != 0)
        assert 0.25 < float(dropped.sum() / (given != 0).sum()) < 0.35
        assert_close(output[~dropped], given[~dropped] / 0.7)
    network.eval()
    assert torch.equal(network(inputs), network(inputs))


def test_unknown_activations_are_refused():
    with pytest.raises(InputError, match=r"activation: expected one of gelu, relu, tanh.*did you mean 'relu'"):
        FeedForward(input_size=1, hidden_sizes=[1], output_size=1, activation="relux")


@pytest.mark.parametrize("sizes", [[0], [3, -1]])
def test_hidden_sizes_below_one_are_refused(sizes):
    with pytest.raises(InputError, match="hidden_sizes: expected sizes of at least 1"):
        FeedForward(input_size=1, hidden_sizes=sizes, output_size=1)


@pytest.mark.parametrize("name", ["input_size", "output_size"])
@pytest.mark.parametrize("size", [0, -1])
def test_other_sizes_below_one_are_refused(name, size):
    with pytest.raises(InputError, match=name):
        FeedForward(**{"input_size": 1, "hidden_sizes": [2], "output_size": 1, name: size})
