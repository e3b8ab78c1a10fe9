"""What affected a split, in sentences for the log and the report."""

from stages.artifacts.tasks import SplitSummary


def summary_sentences(summary: SplitSummary) -> list[str]:
    """One line for each count of a summary that is not zero."""
    sentences = [
        (
            summary.folds > 1,
            f"folds: {summary.folds}, validation parts without a common image; each repeat of a training holds out "
            "another one",
        ),
        (
            summary.grouped,
            f"images of groups, each group in one split: {summary.grouped} images, {summary.groups} groups",
        ),
        (
            summary.equal_content,
            f"images with the same content as another image, kept in one split: {summary.equal_content}",
        ),
        (
            summary.near_duplicates,
            "validation and test images similar to an image of another split or fold: "
            f"{summary.near_duplicates}, see near_duplicates.csv",
        ),
        (summary.excluded, f"images excluded because of related images in other splits: {summary.excluded}"),
        (
            summary.straddling,
            f"groups in several splits or folds, kept from an earlier split: {summary.straddling}; delete the folder "
            "of the task for a new split",
        ),
        (summary.unreadable, f"unreadable files of the dataset: {summary.unreadable}, see quarantine.csv"),
    ]
    return [sentence for count, sentence in sentences if count]
