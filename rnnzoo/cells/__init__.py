"""The equations of one time step; `CELLS` lists them without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rnnzoo.registry import Registry

if TYPE_CHECKING:
    from rnnzoo.cells.base import Cell

__all__ = ["CELLS", "list_cells", "make_cell"]

CELLS = Registry("cell", hint="a cell of your own needs --import FILE, or its module imported")
CELLS.add("rnn", "rnnzoo.cells.elman:ElmanCell", "h' = tanh(W x + R h + b)", kind="gated", source="Elman 1990")
CELLS.add(
    "rnn_relu",
    "rnnzoo.cells.elman:ReluElmanCell",
    "h' = max(0, W x + R h + b)",
    kind="gated",
    source="Elman 1990; Le, Jaitly & Hinton 2015",
)
CELLS.add(
    "irnn",
    "rnnzoo.cells.elman:IdentityElmanCell",
    "h' = max(0, W x + R h + b), R the identity at the start",
    kind="gated",
    source="Le, Jaitly & Hinton 2015",
)
CELLS.add(
    "indrnn",
    "rnnzoo.cells.indrnn:IndRNNCell",
    "independent units: h' = max(0, W x + u h + b)",
    kind="staged",
    source="Li et al. 2018",
)
CELLS.add(
    "ugrnn",
    "rnnzoo.cells.minimal:UGRNNCell",
    "update gate network: keep, or compute anew",
    kind="gated",
    source="Collins et al. 2017",
)
CELLS.add(
    "mgu",
    "rnnzoo.cells.minimal:MGUCell",
    "minimal gated unit: one gate resets and updates",
    kind="staged",
    source="Zhou et al. 2016",
)
CELLS.add(
    "gru",
    "rnnzoo.cells.gru:GRUCell",
    "gated recurrent unit, reset after the product (torch, cuDNN)",
    kind="gated",
    source="Cho et al. 2014, first version",
)
CELLS.add(
    "gru_reset_before",
    "rnnzoo.cells.gru:GRUResetBeforeCell",
    "gated recurrent unit, reset before the product (the paper)",
    kind="staged",
    source="Cho et al. 2014, final version",
)
CELLS.add(
    "mut1",
    "rnnzoo.cells.mut:MUT1Cell",
    "found by search: the update gate sees the input alone",
    kind="staged",
    source="Jozefowicz et al. 2015",
)
CELLS.add(
    "mut2",
    "rnnzoo.cells.mut:MUT2Cell",
    "found by search: the reset gate sees the bare input",
    kind="staged",
    source="Jozefowicz et al. 2015",
)
CELLS.add(
    "mut3",
    "rnnzoo.cells.mut:MUT3Cell",
    "found by search: the update gate sees tanh(h)",
    kind="staged",
    source="Jozefowicz et al. 2015",
)
CELLS.add(
    "janet",
    "rnnzoo.cells.minimal:JANETCell",
    "an LSTM whose forget gate alone is left",
    kind="gated",
    source="van der Westhuizen & Lasenby 2018",
)
CELLS.add(
    "lstm",
    "rnnzoo.cells.lstm:LSTMCell",
    "long short-term memory with a forget gate",
    kind="gated",
    source="Hochreiter & Schmidhuber 1997; Gers et al. 2000",
)
CELLS.add(
    "nig",
    "rnnzoo.cells.odyssey:NoInputGateCell",
    "peephole LSTM without its input gate",
    kind="gated",
    source="Greff et al. 2015",
)
CELLS.add(
    "nfg",
    "rnnzoo.cells.odyssey:NoForgetGateCell",
    "peephole LSTM without its forget gate",
    kind="gated",
    source="Greff et al. 2015",
)
CELLS.add(
    "nog",
    "rnnzoo.cells.odyssey:NoOutputGateCell",
    "peephole LSTM without its output gate",
    kind="gated",
    source="Greff et al. 2015",
)
CELLS.add(
    "niaf",
    "rnnzoo.cells.odyssey:NoInputActivationCell",
    "peephole LSTM with a linear block input",
    kind="gated",
    source="Greff et al. 2015",
)
CELLS.add(
    "noaf",
    "rnnzoo.cells.odyssey:NoOutputActivationCell",
    "peephole LSTM that puts out its memory unsquashed",
    kind="gated",
    source="Greff et al. 2015",
)
CELLS.add(
    "cifg",
    "rnnzoo.cells.odyssey:CoupledGatesCell",
    "peephole LSTM that forgets what it overwrites: f = 1 - i",
    kind="gated",
    source="Greff et al. 2015",
)
CELLS.add(
    "peephole",
    "rnnzoo.cells.odyssey:PeepholeLSTMCell",
    "LSTM whose gates see its memory",
    kind="gated",
    source="Greff et al. 2015",
)
CELLS.add(
    "fgr",
    "rnnzoo.cells.odyssey:FullGateRecurrenceCell",
    "peephole LSTM whose gates see each other's last values",
    kind="staged",
    source="Greff et al. 2015",
)
CELLS.add(
    "lstm_projected",
    "rnnzoo.cells.projected:ProjectedLSTMCell",
    "LSTM whose output is smaller than its memory",
    kind="staged",
    source="Sak et al. 2014",
)
CELLS.add(
    "lstm_layer_norm",
    "rnnzoo.cells.normalised:LayerNormLSTMCell",
    "layer-normalised LSTM (the paper): reads a normalised memory",
    kind="gated",
    source="Ba et al. 2016",
)
CELLS.add(
    "lstm_state_norm",
    "rnnzoo.cells.normalised:StateNormLSTMCell",
    "layer-normalised LSTM that carries its memory normalised",
    kind="gated",
    source="torch's benchmark of recurrent networks",
)
CELLS.add(
    "gru_layer_norm",
    "rnnzoo.cells.normalised:LayerNormGRUCell",
    "layer-normalised GRU, reset after the product",
    kind="gated",
    source="Ba et al. 2016",
)
CELLS.add(
    "multiplicative_lstm",
    "rnnzoo.cells.multiplicative:MultiplicativeLSTMCell",
    "LSTM with another recurrence for each input",
    kind="staged",
    source="Krause et al. 2016",
)
CELLS.add(
    "mogrifier",
    "rnnzoo.cells.mogrifier:MogrifierCell",
    "LSTM whose input and state gate each other first",
    kind="staged",
    source="Melis et al. 2020",
)
CELLS.add(
    "slstm",
    "rnnzoo.cells.xlstm:SLSTMCell",
    "LSTM with an exponential input gate, a normalised memory",
    kind="gated",
    source="Beck et al. 2024",
)
CELLS.add(
    "mlstm",
    "rnnzoo.cells.xlstm:MLSTMCell",
    "LSTM with a matrix memory, written by key and read by query",
    kind="general",
    source="Beck et al. 2024",
)
CELLS.add(
    "mingru",
    "rnnzoo.cells.mingru:MinGRUCell",
    "minimal GRU: h' = (1 - z) h + z n, its gate free of h",
    kind="linear",
    source="Feng et al. 2024",
)
CELLS.add(
    "mingru_log",
    "rnnzoo.cells.mingru:MinGRULogCell",
    "minimal GRU with a positive state, the paper's form in logarithms",
    kind="linear",
    source="Feng et al. 2024, appendix B",
)
CELLS.add(
    "minlstm",
    "rnnzoo.cells.mingru:MinLSTMCell",
    "minimal LSTM: forget and input gate share one, free of h",
    kind="linear",
    source="Feng et al. 2024",
)
CELLS.add(
    "minlstm_log",
    "rnnzoo.cells.mingru:MinLSTMLogCell",
    "minimal LSTM with a positive state, the paper's form in logarithms",
    kind="linear",
    source="Feng et al. 2024, appendix B",
)
CELLS.add(
    "qrnn",
    "rnnzoo.cells.qrnn:QRNNCell",
    "quasi-recurrent network: gates from two inputs, fo-pooling",
    kind="linear",
    source="Bradbury et al. 2016",
)
CELLS.add(
    "sru",
    "rnnzoo.cells.sru:SRUCell",
    "simple recurrent unit with a highway, gates free of c",
    kind="linear",
    source="Lei et al. 2017, version 1",
)
CELLS.add(
    "lru",
    "rnnzoo.cells.lru:LRUCell",
    "linear recurrent unit: a complex diagonal recurrence",
    kind="linear",
    source="Orvieto et al. 2023",
)
CELLS.add(
    "rg_lru",
    "rnnzoo.cells.rg_lru:RGLRUCell",
    "real-gated linear recurrent unit of Griffin",
    kind="linear",
    source="De et al. 2024",
)
CELLS.add(
    "hgrn",
    "rnnzoo.cells.hgrn:HGRNCell",
    "hierarchically gated recurrence: a lower bound for the forget gate",
    kind="linear",
    source="Qin, Yang & Zhong 2023",
)


def list_cells() -> list[str]:
    """Return the names of all cells.

    >>> "lstm" in list_cells()
    True
    """
    return list(CELLS)


def make_cell(name: str, *, input_size: int, hidden_size: int, **options: Any) -> Cell:
    """Build a cell by its name.

    Args:
        name: one of `list_cells`.
        input_size: numbers per step of the input.
        hidden_size: units.
        options: further arguments of the cell, such as ``forget_bias``.

    Raises:
        InputError: for an unknown cell, an option that it does not have, or a size below 1.
    """
    from rnnzoo.cells.base import check_options

    kind = CELLS[name]
    check_options(name, kind, options)
    return kind(input_size=input_size, hidden_size=hidden_size, **options)
