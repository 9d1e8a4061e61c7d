"""Studies of training at scale: on many devices and processes, killed and resumed."""
