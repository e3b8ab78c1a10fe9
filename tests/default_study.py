"""Checks the accuracies of the default study after `dvc repro`: `python -m tests.default_study`."""

import json
import sys
from pathlib import Path

# Lowest mean test accuracy over the repeats: a-scratch shows that training works, b-two-layers that transfer does.
LOWEST = {"a-scratch": 0.97, "b-two-layers": 0.90, "b-scratch": 0.86}

if __name__ == "__main__":
    metrics = json.loads(Path("reports/metrics.json").read_text())
    accuracies = {model: metrics[model]["test"]["accuracy"] for model in LOWEST}
    print("default study:", ", ".join(f"{model} {accuracy:.1%}" for model, accuracy in accuracies.items()))
    below = [model for model in LOWEST if accuracies[model] < LOWEST[model]]
    if below:
        sys.exit(f"test accuracy too low: {', '.join(f'{model} < {LOWEST[model]:.0%}' for model in below)}")
