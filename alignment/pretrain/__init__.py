"""From scratch: batches, schedule, the training loop, checkpoints and what the result is compared with."""
