"""Studies of training at scale: many devices and processes; killing and resuming."""
