"""Recurrent cells, ready to use: each a step(params, carry, x) -> (carry, y).

Beside each cell stand `…_params`, which draws its parameters, `…_carry`, its state
before the first step, and `…_sequence`, the cell along time with a fast backward pass.
"""

from bpvariants.cells._gru import (
    gru as gru,
    gru_carry as gru_carry,
    gru_params as gru_params,
    gru_sequence as gru_sequence,
)
from bpvariants.cells._lstm import (
    lstm as lstm,
    lstm_carry as lstm_carry,
    lstm_params as lstm_params,
    lstm_sequence as lstm_sequence,
)
from bpvariants.cells._tanh import (
    tanh as tanh,
    tanh_carry as tanh_carry,
    tanh_params as tanh_params,
    tanh_sequence as tanh_sequence,
)
