"""Whether labels that a selection asks for teach more than labels of pairs drawn at random.

heads.py      an ensemble of heads on states that stay: ridge, evidence, bootstrap, posterior
pools.py      pairs of a simulated campaign or of a file, and what frozen layers make of them
rounds.py     ten rounds of asking, learning and being asked, by arm
figures.py    labels to reach, differences by round and part, coverage
unbiased.py   the estimate on held-out pairs through ten rounds, where the truth is known
replay.py     the same rounds on comparisons that people labelled before
"""
