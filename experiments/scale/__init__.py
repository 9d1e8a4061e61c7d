"""Training that outgrows a process: killed and resumed."""
