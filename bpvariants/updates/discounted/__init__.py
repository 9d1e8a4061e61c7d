"""Updates that remember: discounted past gradients, replay and least squares."""
