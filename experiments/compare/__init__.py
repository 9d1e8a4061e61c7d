"""Study `compare`: static, recurrent and resilient backpropagation, and BPTT."""

from experiments.compare.digits import digits as digits
from experiments.compare.job import Job as Job, Reference as Reference, Task as Task
from experiments.compare.memory import memory as memory
from experiments.compare.sunspots import sunspots as sunspots
