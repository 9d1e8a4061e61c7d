"""Recurrent cells, ready to use: each a step(params, carry, x) -> (carry, y).

Beside each cell stand `…_params`, which draws its parameters, and `…_carry`, its state
before the first step. With dense products, and little to keep for the way back: tanh,
gru, lstm; lstm_cudnn is a whole sequence of it on a GPU. Element-wise in the carry, and
so for `gradients.parallel_unroll(…, method="linear")` too: lru, min_gru. In pairs of
numbers of the carry, apart from each other, for gradients forward in time: rtu.
"""

from bpvariants.cells._gru import (
    gru as gru,
    gru_carry as gru_carry,
    gru_params as gru_params,
)
from bpvariants.cells._lru import (
    lru as lru,
    lru_carry as lru_carry,
    lru_params as lru_params,
)
from bpvariants.cells._lstm import (
    lstm as lstm,
    lstm_carry as lstm_carry,
    lstm_params as lstm_params,
)
from bpvariants.cells._lstm_cudnn import lstm_cudnn as lstm_cudnn
from bpvariants.cells._min_gru import (
    min_gru as min_gru,
    min_gru_carry as min_gru_carry,
    min_gru_params as min_gru_params,
)
from bpvariants.cells._rtu import (
    rtu as rtu,
    rtu_carry as rtu_carry,
    rtu_params as rtu_params,
)
from bpvariants.cells._tanh import (
    tanh as tanh,
    tanh_carry as tanh_carry,
    tanh_params as tanh_params,
)
