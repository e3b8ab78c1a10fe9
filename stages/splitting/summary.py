"""What affected a split, in sentences for the log and the report."""

from stages.artifacts.tasks import SplitSummary


def summary_sentences(summary: SplitSummary) -> list[str]:
    """One line for each count of a summary that is not zero."""
    sentences = [
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
            f"validation and test images similar to an image of another split: {summary.near_duplicates}, see "
            "near_duplicates.csv",
        ),
        (summary.excluded, f"images excluded because of related images in other splits: {summary.excluded}"),
        (
            summary.straddling,
            f"groups in several splits, kept from an earlier split: {summary.straddling}; delete the folder of the "
            "task for a new split",
        ),
        (summary.unreadable, f"unreadable files of the dataset: {summary.unreadable}, see quarantine.csv"),
    ]
    return [sentence for count, sentence in sentences if count]
