"""Recurrent cells. A :class:`Cell` is a step with the methods `init` and `carry`.

    params = cells.gru.init(key, inputs, units)     draws the parameters
    carry = cells.gru.carry(params, batch_shape)    the carry before the first step
    carry, y = cells.gru(params, carry, x)          one step, for any gradient rule

- `tanh`, `gru`, `lstm` have dense weight matrices, and keep few residuals for the
  backward pass. `lstm_cudnn` runs a whole sequence of `lstm`, on a GPU by cuDNN.
- `lru`, `min_gru` are elementwise in the carry, so they also work with
  `gradients.parallel_unroll(…, method="linear")`.
- `rtu` has units that do not depend on each other, each with two real state variables.
  The exact gradient of `rtu` forward in time is therefore cheap.
"""

from bpvariants.cells._cell import Cell as Cell
from bpvariants.cells._gru import gru as gru
from bpvariants.cells._lru import lru as lru
from bpvariants.cells._lstm import lstm as lstm
from bpvariants.cells._lstm_cudnn import lstm_cudnn as lstm_cudnn
from bpvariants.cells._min_gru import min_gru as min_gru
from bpvariants.cells._rtu import rtu as rtu
from bpvariants.cells._tanh import tanh as tanh
