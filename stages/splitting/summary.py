"""What affected a split, in sentences for the log and the report."""

from stages.artifacts.images import IMAGES_FOLDER
from stages.artifacts.tasks import TASKS_FOLDER, SplitSummary
from stages.core.wording import counted, listing

MAX_LISTED = 5  # classes in a sentence


def summary_sentences(summary: SplitSummary, task: str, dataset: str) -> list[str]:
    """One line per count of a summary of a task that is not zero."""
    names = listing(summary.limiting_classes[:MAX_LISTED])
    others = len(summary.limiting_classes) - MAX_LISTED
    limiting = f"class {names} has" if len(summary.limiting_classes) == 1 else f"classes {names} have"
    if others > 0:
        limiting = f"classes {names} and {others} more have"
    sentences = [
        (
            summary.folds > 1,
            f"The images outside the test split form {summary.folds} folds. Each repeat holds out another fold for "
            "validation.",
        ),
        (
            summary.limiting_classes,
            f"Only {counted(summary.folds, 'fold')}: {limiting} too few images for more.",
        ),
        (
            summary.grouped,
            f"images of groups, each group in one split: {counted(summary.grouped, 'image')}, "
            f"{counted(summary.groups, 'group')}",
        ),
        (
            summary.equal_content,
            f"images with the same content as another image, kept in one split: {summary.equal_content}",
        ),
        (
            summary.near_duplicates,
            "validation and test images similar to an image of another split: "
            f"{summary.near_duplicates}, see {TASKS_FOLDER / task}/near_duplicates.csv",
        ),
        (summary.excluded, f"images excluded because of related images in other splits: {summary.excluded}"),
        (
            summary.straddling,
            f"groups in several splits or folds, kept from an earlier split: {summary.straddling}; delete the folder "
            "of the task for a new split",
        ),
        (
            summary.unreadable,
            f"unreadable files of the dataset: {summary.unreadable}, see {IMAGES_FOLDER / dataset}/quarantine.csv",
        ),
        (
            summary.ignored,
            f"files of the dataset that are not images of a class: {summary.ignored}, see "
            f"{IMAGES_FOLDER / dataset}/ignored.csv",
        ),
    ]
    return [sentence for count, sentence in sentences if count]


def split_warnings(task: str, summary: SplitSummary) -> list[str]:
    """Reasons to doubt the images of a task: contradicting labels, and published splits that it does not use."""
    warnings = []
    if summary.contradictions:
        examples = [f"{image['name']!r} ({image['class']})" for image in summary.first_contradictions]
        warnings.append(
            f"{task}: {summary.contradictions} images have the same content as an image of another class, such as "
            f"{listing(examples)}. Correct the labels, or remove the images. data/tasks/{task}/contradictions.csv "
            "lists them."
        )
    for split, (images, elsewhere) in summary.unused.items():
        warnings.append(
            f"{task}: the dataset publishes a {split} split, which the task does not use: {elsewhere} of its {images} "
            f"images are in other splits. To use it, write `{split}: published` in tasks.{task}."
        )
    return warnings
