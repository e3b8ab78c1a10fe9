"""Takes the pictures in docs/examples: the top of the report of the default study, and of the flowers study.

`python -m benchmarks.examples [work]` needs `chromium`. `work` is the folder in which
`python -m benchmarks.results <files> <work> flowers_vgg16` has run. Without it, only the first picture is taken.
"""

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from stages.core.errors import UserError
from stages.core.files import atomic_file

ROOT = Path(__file__).parents[1]
EXAMPLES_FOLDER = ROOT / "docs/examples"
EXAMPLE = "flowers_vgg16"
WIDTH, HEIGHT = 1280, 1500  # pixels of a picture, which shows the verdict and the table of all models


def picture_of(project: Path, name: str) -> None:
    """Take a picture of the top of a project's report, with its contents folded.

    `UserError` without Chromium or without a report.
    """
    page, chromium = project / "reports/report.html", shutil.which("chromium")
    if chromium is None:
        raise UserError("chromium is not installed. On Debian, run `apt-get install chromium`.")
    if not page.exists():
        raise UserError(f"{page} does not exist. Run `dvc repro` in {project}.")
    with sync_playwright() as playwright, atomic_file(EXAMPLES_FOLDER / f"{name}.png") as partial:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        tab.goto(page.resolve().as_uri())
        tab.evaluate("document.getElementById('contents').open = false")
        tab.screenshot(path=partial, type="png")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, nargs="?")
    work = parser.parse_args().work
    try:
        picture_of(ROOT, "digits_class_groups")
        if work:
            picture_of(work / EXAMPLE, EXAMPLE)
    except UserError as error:
        sys.exit(f"examples: {error}")
    print(f"{EXAMPLES_FOLDER.relative_to(ROOT)}: {', '.join(sorted(path.name for path in EXAMPLES_FOLDER.iterdir()))}")


if __name__ == "__main__":
    main()
