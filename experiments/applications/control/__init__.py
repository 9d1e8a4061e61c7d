"""Control: policies learned through a simulated system."""
