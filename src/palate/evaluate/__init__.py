"""Judges on benchmarks: verdicts, and the estimates made of them.

Nothing is imported here, so that `palate.evaluate.metrics` needs no torch.
"""
