"""What a distribution requires here but torch and its sisters, one a line, for pip.

python benchmarks/peers/without_torch.py DISTRIBUTION     # of the environment that it stands in
"""

import sys
from importlib.metadata import requires

from pip._vendor.packaging.requirements import Requirement

for line in requires(sys.argv[1]) or []:
    wanted = Requirement(line)
    holds = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
    if holds and not wanted.name.startswith("torch"):
        extras = f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""
        print(f"{wanted.name}{extras}{wanted.specifier}")
