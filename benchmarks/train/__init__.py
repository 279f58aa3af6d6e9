"""Training a reward model: Palate's three paths and TRL's RewardTrainer."""
