"""Writes the recommended model of a task as a Keras file: exports/recommended/<task>.

`model.keras` takes uint8 images and returns probabilities, in the precision that the model was trained in. `model.json`
says which model it is. The recommended models of all tasks are the artifact `recommended` in dvc.yaml. This stage
depends on the checksums that `compare` wrote, so it runs again only for another model or other weights.
"""

from stages.artifacts.models import read_model_record
from stages.artifacts.reports import EXPORTS_FOLDER, REPORTS_FOLDER
from stages.core.files import atomic_directory, read_json, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.training.exporting import keras_predictor, prepare_export, write_keras

CHOICES = REPORTS_FOLDER / "recommended"


def main(params: Params, task: str) -> str:
    name = read_json(CHOICES / f"{task}.json")["model"]
    with atomic_directory(EXPORTS_FOLDER / task) as folder:
        if name is None:
            write_json(folder / "model.json", {"task": task, "model": None})
            return "the study has no model of this task"
        record = read_model_record(name)
        export = prepare_export(record)
        write_keras(export.model, export.metadata, folder / "model.keras")
        (difference,), problem = export.compare(keras_predictor(folder / "model.keras"))
        summary = {
            "task": task,
            "model": name,
            "kind": record.kind,
            "backbone": record.provenance.backbone,
            "cut": None if record.kind == "network" else " + ".join(record.provenance.cuts),
        }
        if problem:  # the run goes on to its report
            (folder / "model.keras").unlink()
            summary["not_exported"] = problem
            print(f"Warning, {task}: {name} was not exported: {problem}.")
        write_json(folder / "model.json", summary | export.metadata)
    return f"{name}; probabilities of test images differ from the stored ones by at most {difference:.1e}"


if __name__ == "__main__":
    run_stage(main, "tasks")
