"""Networks, batches and windows that several studies share."""
