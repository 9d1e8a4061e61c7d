"""Updates with a forgetting factor: past gradients, replay and least squares."""
