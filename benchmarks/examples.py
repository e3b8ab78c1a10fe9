"""Makes the example reports of docs/examples: of the default study as it stands here, and of the CIFAR-10 study.

`python -m benchmarks.examples <work>`, with Debian's `chromium`; <work> is the folder in which
`python -m benchmarks.results <files> <work> cifar10_cut_layers` has run. Trained models are taken as they are; what
`gallery`, `evaluate`, `mistakes` and `report` make of them is made by the code here.
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
FOLDER = ROOT / "docs/examples"
EXAMPLE = "cifar10_cut_layers"
WIDTH, HEIGHT = 1280, 1500  # pixels of a picture: the verdict, and the table of all models


def report_of(run: Path) -> Path:
    """Make the report of a run by the code here; returns the page. `UserError` where a stage fails."""
    galleries, mistakes = (
        [[stage, task] for task in load_study(run / "params.yaml").tasks] for stage in ("gallery", "mistakes")
    )
    for stage in (*galleries, ["evaluate"], *mistakes, ["report"]):
        # -P: else the code of the run would be taken, which lies in the folder it runs in.
        command = [sys.executable, "-P", "-m", f"stages.{stage[0]}", *stage[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=run, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"{' '.join(stage)} failed in {run}:\n{done.stderr[-2000:]}")
    return run / "reports/report.html"


def picture_of(page: Path, picture: Path) -> None:
    """A picture of the first screens of a page, without its contents. `UserError` where there is no Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise UserError("chromium is not installed; on Debian, `apt-get install chromium`.")
    with sync_playwright() as playwright, atomic_file(picture) as partial:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        tab.goto(page.resolve().as_uri())
        tab.evaluate("document.getElementById('contents').open = false")
        tab.screenshot(path=partial, type="png")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    run = parser.parse_args().work / EXAMPLE
    try:
        if not (run / "models").is_dir():
            raise UserError(
                f"{run} is no finished run; `python -m benchmarks.results <files> <work> {EXAMPLE}` makes it."
            )
        picture_of(ROOT / "reports/report.html", FOLDER / "digits_class_groups.png")
        page = report_of(run)
        with atomic_file(FOLDER / f"{EXAMPLE}.html") as partial:
            shutil.copyfile(page, partial)
        picture_of(FOLDER / f"{EXAMPLE}.html", FOLDER / f"{EXAMPLE}.png")
    except UserError as error:
        sys.exit(f"examples: {error}")
    print(f"{FOLDER.relative_to(ROOT)}: {', '.join(sorted(path.name for path in FOLDER.iterdir()))}")


if __name__ == "__main__":
    main()
