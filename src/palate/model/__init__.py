"""From a conversation to a reward: tokens, packed batches, the model, the checkpoint."""
