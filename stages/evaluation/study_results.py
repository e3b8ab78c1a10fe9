"""All that the stages evaluate and compare read: the models of the study and their tasks."""

from dataclasses import dataclass

from stages.artifacts.models import ModelRecord, ModelResult, read_result
from stages.artifacts.tasks import SPLITS, Task, read_task
from stages.core.errors import UserError
from stages.core.params import MODEL_SECTIONS, PARAMS, Params
from stages.evaluation.compared_folds import ComparedFolds, compared_folds
from stages.evaluation.predictions import SplitPredictions, join_predictions


@dataclass(frozen=True)
class StudyResults:
    """tasks: those with at least one model. results, predictions: of each model; predictions also of each split."""

    tasks: dict[str, Task]
    results: dict[str, ModelResult]
    predictions: dict[str, dict[str, SplitPredictions]]

    @property
    def records(self) -> dict[str, ModelRecord]:
        """The record of each model."""
        return {model: result.record for model, result in self.results.items()}

    def models(self, task: str) -> list[str]:
        """The models of a task, in the order of the study."""
        return [model for model, record in self.records.items() if record.task == task]

    def compared(self, task: str) -> ComparedFolds:
        """The models of a task that are compared, and the folds on whose validation images."""
        records = {model: self.records[model] for model in self.models(task)}
        images = [len(self.tasks[task].rows("validation", fold=fold)) for fold in range(self.tasks[task].folds)]
        return compared_folds(records, images)

    def task_of(self, model: str) -> Task:
        """The task of a model."""
        return self.tasks[self.results[model].record.task]


def read_study(params: Params) -> StudyResults:
    """Read the models that params.yaml names and the tasks that they were trained for.

    Raises `UserError` if a file is missing or damaged, or a model does not belong to its task.
    """
    results = {model: read_result(model) for model in params.names(*MODEL_SECTIONS)}
    trained = {result.record.task for result in results.values()}
    tasks = {name: read_task(name) for name in params.names("tasks") if name in trained}
    predictions = {}
    for model, result in results.items():
        if result.record.task not in tasks:
            raise UserError(
                f"models/{model}: it was trained for task {result.record.task!r}, which is not in {PARAMS}. Run "
                f"`dvc repro` to train {model!r} again."
            )
        task = tasks[result.record.task]
        predictions[model] = {
            split: join_predictions(result.record, split, task, result.predictions[split]) for split in SPLITS
        }
    return StudyResults(tasks, results, predictions)
