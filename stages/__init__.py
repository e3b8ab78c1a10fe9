"""The stages of the pipeline, one module per stage: `python -m stages.<stage> [entry]`.

`dvc.yaml` is the map; docs/architecture.md describes the packages. The modules `predict`, `export`,
`interim_report` and `run` are commands of their own.
"""

import os

# TensorFlow reads this when it is imported: it logs errors only, and the lines of the stages stay readable.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
