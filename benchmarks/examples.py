"""Makes the example reports in docs/examples: of the default study in the working tree, and of the CIFAR-10 study.

`python -m benchmarks.examples [work]` needs `chromium`. `work` is the folder in which
`python -m benchmarks.results <files> <work> cifar10_cut_layers` has run. Its trained models are used as they are; the
code of the working tree runs `gallery`, `evaluate`, `compare`, `mistakes` and `report` on them. Without `work`, it
takes only the picture of the default study.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from stages.core.errors import UserError
from stages.core.files import atomic_file
from stages.validation.study import load_study

ROOT = Path(__file__).parents[1]
EXAMPLES_FOLDER = ROOT / "docs/examples"
EXAMPLE = "cifar10_cut_layers"
WIDTH, HEIGHT = 1280, 1500  # pixels of a picture, which shows the verdict and the table of all models


def report_of(run: Path) -> Path:
    """Make the report of a run with the code of the working tree; returns the page. `UserError` if a stage fails."""
    galleries, mistakes = (
        [[stage, task] for task in load_study(run / "params.yaml").tasks] for stage in ("gallery", "mistakes")
    )
    for stage in (*galleries, ["evaluate"], ["compare"], *mistakes, ["report"]):
        # -P: Python would otherwise import the code of the run from the current folder.
        command = [sys.executable, "-P", "-m", f"stages.{stage[0]}", *stage[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=run, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"{' '.join(stage)} failed in {run}:\n{done.stderr[-2000:]}")
    return run / "reports/report.html"


def picture_of(page: Path, picture: Path) -> None:
    """Take a picture of the top of a page, with its contents folded. `UserError` without Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise UserError("chromium is not installed. On Debian, run `apt-get install chromium`.")
    with sync_playwright() as playwright, atomic_file(picture) as partial:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        tab.goto(page.resolve().as_uri())
        tab.evaluate("document.getElementById('contents').open = false")
        tab.screenshot(path=partial, type="png")
        browser.close()


def make_example(run: Path) -> None:
    """Make the page and the picture of the CIFAR-10 study; `UserError` if the run is not finished."""
    if not (run / "models").is_dir():
        raise UserError(
            f"{run} is not a finished run. Run `python -m benchmarks.results <files> <work> {EXAMPLE}` first."
        )
    page = report_of(run)
    with atomic_file(EXAMPLES_FOLDER / f"{EXAMPLE}.html") as partial:
        shutil.copyfile(page, partial)
    picture_of(EXAMPLES_FOLDER / f"{EXAMPLE}.html", EXAMPLES_FOLDER / f"{EXAMPLE}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, nargs="?")
    work = parser.parse_args().work
    try:
        picture_of(ROOT / "reports/report.html", EXAMPLES_FOLDER / "digits_class_groups.png")
        if work:
            make_example(work / EXAMPLE)
    except UserError as error:
        sys.exit(f"examples: {error}")
    print(f"{EXAMPLES_FOLDER.relative_to(ROOT)}: {', '.join(sorted(path.name for path in EXAMPLES_FOLDER.iterdir()))}")


if __name__ == "__main__":
    main()
