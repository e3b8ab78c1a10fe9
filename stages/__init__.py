"""The stages of the pipeline, one module each: `python -m stages.<stage> [entry]`.

`dvc.yaml` is the map. The sub-packages hold what stages share: `base` (the start of a stage, files), `study` (the
params file and its checks), `sources` (where data come from), `data` (what stages hand on: images, tasks, features,
weights, results), `networks`, `training` and `reporting`.
"""

import os

# TensorFlow reads this when it is imported: errors only, so that the lines of the stages can be followed.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
