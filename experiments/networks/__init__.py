"""Networks, batches of sequences, and windows of streams that several studies share."""
