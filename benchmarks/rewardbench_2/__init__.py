"""RewardBench 2's size, end to end: one command of Palate beside RewardBench's own pipeline."""
