"""What the default study must reach, read from its metrics: `python -m tests.default_study` after `dvc repro`."""

import json
import sys
from pathlib import Path

# Mean test accuracy over the repeats; a-scratch and b-two-layers say that training and transfer work at all.
LOWEST = {"a-scratch": 0.97, "b-two-layers": 0.90, "b-scratch": 0.86}

if __name__ == "__main__":
    metrics = json.loads(Path("reports/metrics.json").read_text())
    found = {model: metrics[model]["test"]["accuracy"] for model in LOWEST}
    print("default study:", ", ".join(f"{model} {accuracy:.1%}" for model, accuracy in found.items()))
    below = [model for model in LOWEST if found[model] < LOWEST[model]]
    if below:
        sys.exit(f"below what the study must reach: {', '.join(f'{model} < {LOWEST[model]:.0%}' for model in below)}")
