"""One module a stage of dvc.yaml: read params, call the library, write outs and metrics."""

import os

# Set before torch loads OpenMP: its threads otherwise spin while they wait, and on a machine that is busy with anything else
# (a second stage, say) that makes small models many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
