"""Studies of gradient rules and updates on real data: `python -m experiments`."""
