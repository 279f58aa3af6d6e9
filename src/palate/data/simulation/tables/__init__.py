"""The words of the simulated campaign: facts, tasks and phrases, as plain tables."""
