"""Which comparisons to have labelled next, and what comes of it.

selection   of pairs that an ensemble has scored: those to ask for, each with a known probability
loop        week by week: ask, train, judge, and what labels buy
round       what people are asked next, as a folder, and the batch of their answers
doubt       of labelled comparisons: those whose label is probably wrong
"""
