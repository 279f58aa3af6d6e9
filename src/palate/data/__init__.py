"""Raw rows in, mixtures out: sources, lint, overlap, hold-out, mixture."""
