"""What Palate costs, alone and beside its peers; see README.md."""
