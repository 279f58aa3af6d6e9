"""`python -m palate`, and what torchrun starts: `torchrun ... -m palate run RECIPE`."""

from palate.cli import main

if __name__ == "__main__":
    main()
