"""Training that outgrows a process or a device: many of them, killed and resumed."""
