"""Recurrent cells. A :class:`Cell` is a step function with methods `init` and `carry`.

    params = cells.gru.init(key, inputs, units)     draws random parameters
    carry = cells.gru.carry(params, batch_shape)    the carry before the first step
    carry, y = cells.gru(params, carry, x)          one time step

- `tanh`, `gru` and `lstm` have dense weight matrices, and store few residuals for the
  backward pass. `lstm_cudnn` runs `lstm` over a whole sequence; on an NVIDIA GPU, it
  calls cuDNN.
- `gru.with_kernel("pallas")` and `lstm.with_kernel("pallas")` are the same cells, but
  run whole sequences in one kernel on a TPU or an NVIDIA GPU.
- In `lru` and `min_gru`, each element of the new carry is an affine function of one
  element of the old carry. These cells therefore also work with
  `gradients.parallel_unroll(…, method="linear")`, which computes all time steps in
  parallel.
- In `rtu`, each unit has two real state variables, which do not depend on other units.
  RTRL, the exact gradient forward in time, is therefore cheap for `rtu`.
- `reversible_gru` has an inverse step, so `gradients.bptt(…, backward="reversible")`
  need not store its states.
- `lif` and `alif` are spiking neurons, with a surrogate derivative of the spikes.
"""

from bpvariants.cells._alif import alif as alif, AlifState as AlifState
from bpvariants.cells._cell import Cell as Cell
from bpvariants.cells._gru import gru as gru
from bpvariants.cells._lif import lif as lif, LifState as LifState
from bpvariants.cells._lru import lru as lru
from bpvariants.cells._lstm import lstm as lstm
from bpvariants.cells._lstm_cudnn import lstm_cudnn as lstm_cudnn
from bpvariants.cells._min_gru import min_gru as min_gru
from bpvariants.cells._reversible_gru import reversible_gru as reversible_gru
from bpvariants.cells._rtu import rtu as rtu
from bpvariants.cells._spikes import triangular as triangular
from bpvariants.cells._tanh import tanh as tanh
