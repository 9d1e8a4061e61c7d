"""Updates with memory: discounted past gradients, replay and least squares."""
