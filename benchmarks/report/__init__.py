"""How long a report of 100,000 verdicts takes to make, to open, and to look through."""
