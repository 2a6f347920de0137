"""One module a stage of dvc.yaml: read params, call the library, write outs and metrics."""

import gc
import os
import sys

# Set before torch loads OpenMP: its threads otherwise spin while they wait, and on a machine that is busy with anything
# else (a second stage, say) that makes small models many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if sys.argv[:1] == ["-m"]:
    # `python -m stages.X` is importing: nothing of it is garbage, and looking for some costs a fifth of the time.
    # `stages.common.run_stage` switches the collector on again.
    gc.disable()
