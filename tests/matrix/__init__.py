"""Tables, networks, conditions and oracles of the generated matrix of tests."""
