"""Writes the recommended model of a task as a file that needs nothing of this project: exports/recommended/<task>.

`model.keras` takes uint8 images and gives probabilities, in the precision it was trained in; `model.json` says which
model it is. Together those of all tasks are the artifact `recommended`, see dvc.yaml. What the model is made of is
known by the checksums that `evaluate` wrote, so that another model, or other weights of it, run this stage, and
nothing else does.
"""

from pathlib import Path

from stages.core.files import atomic_directory, read_json, write_json
from stages.core.stage import run_stage
from stages.export import export_of, keras_model, write_keras
from stages.validation.study import Study

CHOICES = Path("reports/recommended")
FOLDER = Path("exports/recommended")


def main(study: Study, task: str) -> str:
    name = read_json(CHOICES / f"{task}.json")["model"]
    with atomic_directory(FOLDER / task) as folder:
        if name is None:
            write_json(folder / "model.json", {"task": task, "model": None})
            return "the study has no model of this task"
        export = export_of(study, name)
        write_keras(export.model, export.told, folder / "model.keras")
        (differs,), problem = export.compare(keras_model(folder / "model.keras"))
        record = export.record
        about = {"task": task, "model": name, "kind": record.kind, "backbone": record.backbone, "cut": record.cut}
        if problem:  # no reason to end the run before its report
            (folder / "model.keras").unlink()
            about["not_exported"] = problem
            print(f"Warning, {task}: {name} is not exported: {problem}.")
        write_json(folder / "model.json", about | export.told)
    return f"{name}, whose probabilities of test images differ from the stored ones by at most {differs:.1e}"


if __name__ == "__main__":
    run_stage(main, "tasks")
