"""Do the statistics hold on simulated truth, and how long does a large report take?"""
