"""Whether learning from ties, votes, annotators and rankings pays, where the truth is known."""
