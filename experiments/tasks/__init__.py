"""Tasks of `compare`: for each a network, its data, and what is set against what."""

from experiments.tasks._digits import digits as digits
from experiments.tasks._job import Job as Job, Reference as Reference, Task as Task
from experiments.tasks._language import language as language
from experiments.tasks._sunspots import sunspots as sunspots
