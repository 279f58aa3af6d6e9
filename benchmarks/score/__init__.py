"""Scoring with a reward model: Palate, RewardBench and plain transformers loops."""
