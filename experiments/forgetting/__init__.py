"""Studies of the forgetting factor: updates that discount past gradients."""
