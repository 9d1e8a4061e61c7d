"""Recurrent cells. Each is one value, a :class:`Cell`: a step, `init` and `carry`.

    params = cells.gru.init(key, inputs, units)     draws its parameters
    carry = cells.gru.carry(params, batch_shape)    the carry before the first step
    carry, y = cells.gru(params, carry, x)          one step, for any gradient rule

Dense products, with little kept for the backward pass: `tanh`, `gru`, `lstm`.
`lstm_cudnn` runs a whole sequence of `lstm` on a GPU.
Elementwise in the carry, also for `gradients.parallel_unroll(…, method="linear")`:
`lru`, `min_gru`.
Independent pairs of real numbers, for gradients forward in time: `rtu`.
"""

from bpvariants.cells._cell import Cell as Cell
from bpvariants.cells._gru import gru as gru
from bpvariants.cells._lru import lru as lru
from bpvariants.cells._lstm import lstm as lstm
from bpvariants.cells._lstm_cudnn import lstm_cudnn as lstm_cudnn
from bpvariants.cells._min_gru import min_gru as min_gru
from bpvariants.cells._rtu import rtu as rtu
from bpvariants.cells._tanh import tanh as tanh
