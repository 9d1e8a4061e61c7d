"""Gradient rules and updates, made from the names that studies take as options.

rule = make_rule("truncated_bptt", step, loss, lookback=20)
update = make_update("adam", steps=1000)
result = training.fit(rule, update, …)
"""

from experiments.choices._rules import (
    draws as draws,
    make_online as make_online,
    make_rule as make_rule,
    ONLINE as ONLINE,
    RULES as RULES,
)
from experiments.choices._updates import make_update as make_update, UPDATES as UPDATES
