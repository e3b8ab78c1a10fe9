"""The report in a real browser: Debian's Chromium, controlled by Playwright."""

import io
import json
import re
import shutil
from itertools import pairwise

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import sync_playwright

from stages import compare, evaluate, report
from stages.artifacts.models import read_result
from tests import example_results
from tests.example_results import change_test_predictions, write_study

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)")

# No sandbox, because root cannot use it. The rest keeps the browser off the network.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
HOSTILE = ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}", "W" * 300]
SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 900}}
all_sizes = pytest.mark.parametrize("size", SIZES)
all_schemes = pytest.mark.parametrize("scheme", ["light", "dark"])


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The reports of a study whose classes have hostile names. One model has no test loss."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(example_results, "CLASSES", HOSTILE)
        patch.setitem(example_results.SECONDS, "b-net", 500.0)  # 8.3 min, more than 13.0 s
        params = write_study()
        constant = np.tile(np.float32([0, 1, 0]), (2, 240, 1))
        change_test_predictions("b-head", probabilities=constant)  # a warning that names the classes
        diverged = read_result("b-net").predictions["test"].probabilities.copy()
        diverged[1] = np.nan
        change_test_predictions("b-net", probabilities=diverged)
        for stage in (evaluate, compare, report):
            stage.main(params)
    return folder / "reports"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def messages():
    """Messages of the browser; a test may clear them."""
    return []


@pytest.fixture
def open_page(browser, reports, messages):
    """A function that opens the report. Console messages, dialogs and other requests fail the test."""
    address = (reports / "report.html").as_uri()
    contexts, requests = [], []

    def dismiss(dialog):
        messages.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def open_report(fragment="", size="desktop", **options):
        contexts.append(browser.new_context(viewport=SIZES[size], **{"reduced_motion": "reduce"} | options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("dialog", dismiss)
        page.on("request", lambda request: requests.append(request.url.split("#")[0]))
        page.goto(address + fragment)
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert messages == []
    assert set(requests) == {address}


def open_all(page):
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")


def models_table(page):
    return page.get_by_role("region", name="All models of b").locator("table")


def cells(table):
    """Columns of a table; of every cell the number that it is sorted by (or None) and the first line of its text."""
    rows = table.evaluate(
        """(table) => [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) =>
            [cell.dataset.value ?? null, cell.innerText.split("\\n")[0]]))"""
    )
    return [
        [(None if value is None else float(value), text) for value, text in column]
        for column in zip(*rows, strict=True)
    ]


def sorted_states(table):
    return table.locator("thead th").evaluate_all("(headers) => headers.map((th) => th.getAttribute('aria-sort'))")


def test_clicks_load_nothing_and_log_nothing(open_page):
    page = open_page()
    page.wait_for_load_state("networkidle")
    for name in ("summary", "th button", "nav a"):
        for element in page.locator(name).all():
            if name == "nav a":
                page.evaluate("document.getElementById('contents').open = true")
            if element.is_visible():
                element.click()


# Sorting


@pytest.mark.parametrize(("label", "columns", "missing_values"), [("All models", 6, set()), ("More", 13, {"missing"})])
def test_every_column_sorts_both_ways_with_missing_values_last(open_page, label, columns, missing_values):
    page = open_page()
    open_all(page)
    table = page.get_by_role("region", name=re.compile(f"^{label}.* of b$")).locator("table")
    buttons = table.locator("thead th button")
    assert buttons.count() == len(cells(table)) == columns
    kinds = set()
    for column in range(buttons.count()):
        before = cells(table)[column]
        numeric = any(value is not None for value, _ in before)
        missing = [cell for cell in before if cell[1] == "-"]
        known = [cell for cell in before if cell[1] != "-"]
        kinds |= {("number" if numeric else "text"), *(["missing"] if missing else [])}
        lower_is_better = buttons.nth(column).inner_text() in (
            "total time", "time per image", "size", "calibration error", "after calibration", "test loss",
        )  # fmt: skip
        up_first = not numeric or lower_is_better
        for direction in ("ascending", "descending") if up_first else ("descending", "ascending"):
            buttons.nth(column).click()
            known.sort(key=lambda cell: cell[0] if numeric else cell[1], reverse=direction == "descending")
            assert cells(table)[column] == known + missing
            states = sorted_states(table)
            assert states.pop(column) == direction
            assert set(states) == {None}
    assert kinds == {"number", "text"} | missing_values


def test_the_recommended_model_comes_first_then_the_best_on_validation_images(open_page):
    page = open_page()
    open_all(page)
    table = models_table(page)
    assert "b-net" in cells(table)[0][0][1]
    more = page.get_by_role("region", name="More metrics of b").locator("table")
    assert [name for _, name in cells(more)[0]] == [name for _, name in cells(table)[0]]
    values = [value for value, _ in cells(more)[2]][1:]
    assert values == sorted(values, reverse=True)
    assert {*sorted_states(table)} == {None}


def test_columns_are_sorted_by_value_whatever_the_unit(open_page, reports):
    page = open_page()
    table = models_table(page)
    for _ in range(2):  # the cheapest comes first
        page.get_by_role("button", name="total time").first.click()
    metrics = json.loads((reports / "metrics.json").read_text(encoding="utf-8"))
    models = [name for name in metrics if name.startswith("b-")]
    expected = sorted(models, key=lambda name: -metrics[name]["cost"]["total_seconds"])
    assert [text.split()[0] for _, text in cells(table)[0]] == expected
    assert "min" in cells(table)[3][0][1]


def test_equal_values_keep_their_order(open_page):
    page = open_page()
    open_all(page)
    table = page.get_by_role("region", name="More metrics of b").locator("table")
    table.locator("th", has_text="model").first.get_by_role("button").click()
    names = [text for _, text in cells(table)[0]]
    images = table.get_by_role("button", name="train images")
    for _ in range(2):
        images.click()
        assert [text for _, text in cells(table)[0]] == names


def test_the_keyboard_sorts_and_the_change_is_announced(open_page):
    page = open_page()
    table = models_table(page)
    button = table.get_by_role("button", name="test accuracy")
    button.focus()
    for key, direction in (("Enter", "descending"), ("Space", "ascending"), ("Enter", "descending")):
        page.keyboard.press(key)
        assert table.locator("th[aria-sort]").evaluate("(th) => [th.innerText, th.ariaSort]") == [
            "test accuracy", direction,
        ]  # fmt: skip
        assert page.get_by_role("status").inner_text() == f"All models of b: sorted by test accuracy, {direction}"
        values = [value for value, _ in cells(table)[2]]
        assert values == sorted(values, reverse=direction == "descending")
        assert button.evaluate("(button) => button === document.activeElement")


# Appearance

# The texts that are outside of their cell, figure or page, or that an ancestor without a scroll bar hides.
CUT_OFF = """() => {
  const cutOff = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode()); ) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest(".unseen, .skip, script") || !element.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNode(node);
    const text = range.getBoundingClientRect();
    const frames = [element.closest("td, th, svg") ?? document.documentElement];
    for (let ancestor = element; ancestor && !ancestor.matches(".box"); ancestor = ancestor.parentElement) {
      if (getComputedStyle(ancestor).overflowX !== "visible") frames.push(ancestor);
    }
    const boxes = frames.map((frame) => frame.getBoundingClientRect());
    if (boxes.some((box) => text.left < box.left - 1 || text.right > box.right + 1)) cutOff.push(node.data);
  }
  return cutOff;
}"""


def assert_all_text_fits(page):
    width, available = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= available
    assert page.evaluate(CUT_OFF) == []


@all_sizes
@all_schemes
def test_all_text_fits_the_page(open_page, size, scheme):
    page = open_page(size=size, color_scheme=scheme)
    open_all(page)
    assert_all_text_fits(page)


@pytest.mark.parametrize(("size", "columns"), [("desktop", 4), ("phone", 3)])
@pytest.mark.parametrize("name", ["m", "mobilenet-v2-frozen-two-layers", "m" * 60])
@pytest.mark.parametrize("detail", ["[83.3, 94.2] ± 1.2", "[100.0, 100.0] ± 10.0"])
def test_the_columns_that_decide_are_seen_without_scrolling(open_page, size, columns, name, detail):
    page = open_page(size=size)
    box = page.get_by_role("region", name="All models of b")
    box.evaluate(
        """(box, [name, detail]) => {
          const row = box.querySelector("tbody tr");
          row.querySelector("a").textContent = name;
          row.querySelector("td small").textContent = detail;
          row.cells[3].textContent = "59.9 min";
          row.cells[4].textContent = "12,300 ms";
          row.cells[5].textContent = "12,345 MB";
        }""",
        [name, detail],
    )
    edge = box.locator("tbody tr").first.locator("td").nth(columns).evaluate("(td) => td.getBoundingClientRect().right")
    assert edge <= box.evaluate("(box) => box.getBoundingClientRect().left + box.clientWidth") + 1
    assert_all_text_fits(page)


@all_sizes
def test_forty_models_with_long_names_fit(open_page, size):
    page = open_page(size=size)
    page.evaluate(
        """() => {
          const tables = "#task-b :is([aria-label^='All models'], [aria-label^='Differences']) table";
          for (const { tHead, tBodies: [body] } of document.querySelectorAll(tables)) {
            while (body.rows.length < 40) body.append(body.rows[1].cloneNode(true));
            body.rows[20].cells[0].firstChild.textContent = "m".repeat(200);
            if (tHead.querySelector("button")) continue;
            for (const row of [tHead.rows[0], ...body.rows]) {
              while (row.cells.length < 41) row.append(row.lastElementChild.cloneNode(true));
            }
            tHead.rows[0].cells[20].firstChild.textContent = "m".repeat(200);
          }
        }"""
    )
    assert_all_text_fits(page)
    box = page.get_by_role("region", name="Differences in test accuracy, b")
    box.evaluate("(box) => box.scrollTo(box.scrollWidth, box.scrollHeight)")
    edges = box.evaluate(
        """(box) => [box, box.querySelector("tbody tr:last-child th"), box.querySelector("thead th:last-child")]
            .map((element) => element.getBoundingClientRect().toJSON())"""
    )
    box_edges, row_name, column_name = edges
    assert row_name["left"] == pytest.approx(box_edges["left"], abs=2)
    assert row_name["width"] < 0.6 * box_edges["width"]
    assert column_name["top"] == pytest.approx(box_edges["top"], abs=2)
    assert column_name["height"] < 0.2 * box_edges["height"]


@all_sizes
@all_schemes
def test_the_page_has_the_colors_of_the_scheme(open_page, size, scheme):
    page = open_page(size=size, color_scheme=scheme)
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB"))
    background = pixels[0, 0]
    assert background.max() < 60 if scheme == "dark" else background.min() > 240
    colors = pixels @ [1 << 16, 1 << 8, 1]
    assert len(np.unique(colors)) > 100
    assert 0.05 < (colors != colors[0, 0]).mean() < 0.95


def test_figures_are_dark_on_a_dark_page(open_page):
    """The background is dark, lines are light, and colors keep their hue."""
    appearance = {}
    for scheme in ("light", "dark"):
        picture = open_page(color_scheme=scheme).locator("#task-b figure img").first
        pixels = np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("HSV")).reshape(-1, 3).astype(int)
        colored = pixels[(pixels[:, 1] > 150) & (pixels[:, 2] > 100)]
        hues, counts = np.unique(colored[:, 0] // 16, return_counts=True)
        appearance[scheme] = np.median(pixels[:, 2]), pixels[:, 2].min(), pixels[:, 2].max(), set(hues[counts > 60])
    light, dark = appearance["light"], appearance["dark"]
    (background, darkest, _, hues), (dark_background, _, lightest, dark_hues) = light, dark
    assert background == 255 and darkest < 40
    assert dark_background < 40 and lightest > 200
    assert hues == dark_hues and len(hues) >= 2


def test_printing_is_white_and_opens_every_section(open_page):
    page = open_page(color_scheme="dark")
    page.evaluate(
        "addEventListener('beforeprint', () => { window.openCount = document.querySelectorAll('[open]').length; })"
    )
    closed = page.locator("details:not([open])").count()
    assert closed > 0
    assert len(page.pdf()) > 10_000
    assert page.evaluate("window.openCount") == page.locator("details").count()
    assert page.locator("details:not([open])").count() == closed
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_scrolling_is_smooth_only_without_reduced_motion(open_page):
    behavior = "getComputedStyle(document.documentElement).scrollBehavior"
    assert open_page(reduced_motion="no-preference").evaluate(behavior) == "smooth"
    assert open_page(reduced_motion="reduce").evaluate(behavior) == "auto"


# Navigation


def test_the_contents_lead_to_every_section(open_page):
    page = open_page()
    links = page.locator("nav a").evaluate_all("(links) => links.map((link) => link.getAttribute('href').slice(1))")
    ids = page.locator("[id]").evaluate_all("(elements) => elements.map((element) => element.id)")
    assert len(set(ids)) == len(ids)
    assert set(links) <= set(ids)
    assert len(set(links)) == len(links)
    sections = page.locator("main section").evaluate_all("(sections) => sections.map((section) => section.id)")
    headings = page.locator("main section h3[id]").evaluate_all("(headings) => headings.map((heading) => heading.id)")
    assert {*sections, *headings} <= set(links)


def test_headings_skip_no_level(open_page):
    levels = open_page().locator("h1, h2, h3, h4").evaluate_all("(all) => all.map((heading) => +heading.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def in_viewport(page, selector):
    return page.locator(selector).evaluate(
        "(element) => element.open && element.getBoundingClientRect().top >= -1 "
        "&& element.getBoundingClientRect().top < innerHeight"
    )


@all_sizes
def test_a_link_opens_the_section_of_its_target(open_page, size):
    page = open_page("#classes-b", size)
    assert in_viewport(page, "#classes-b")

    page = open_page(size=size)
    page.evaluate("document.getElementById('contents').open = true")
    assert not page.locator("#classes-b").evaluate("(details) => details.open")
    link = page.locator("nav a[href='#classes-b']")
    link.click()
    assert in_viewport(page, "#classes-b")
    page.locator("#classes-b > summary").click()
    link.click()  # the address does not change
    assert in_viewport(page, "#classes-b")

    page.evaluate("document.querySelector('#classes-a td').id = 'inner'")
    page.evaluate("location.hash = 'inner'")
    page.wait_for_function("document.getElementById('classes-a').open")


@all_sizes
def test_a_model_in_the_table_links_to_its_figures(open_page, size):
    page = open_page(size=size)
    assert not page.locator("#model-b-head").evaluate("(details) => details.open")
    models_table(page).get_by_role("link", name="b-head").click()
    assert in_viewport(page, "#model-b-head")
    assert page.get_by_role("img", name="accuracy and loss of b-head").is_visible()
    assert page.get_by_role("region", name="Metrics of each class, b-head").is_visible()


@pytest.mark.parametrize("fragment", ["#", "#nowhere", "#<img src=x onerror=alert(3)>", "#%ff"])
def test_a_link_to_nowhere_does_nothing(open_page, fragment):
    opened = [
        page.locator("details[open]").evaluate_all("all => all.map((details) => details.id)")
        for page in (open_page(), open_page(fragment))
    ]
    assert opened[0] == opened[1] == ["contents", "model-b-net", "model-a-net"]


def test_on_a_phone_the_verdict_comes_before_the_contents(open_page):
    page = open_page(size="phone")
    assert page.get_by_role("heading", name="Verdict").bounding_box()["y"] < 250
    page.locator("#contents summary").click()
    page.locator("nav a[href='#reading']").click()
    assert page.evaluate("scrollY") > 1000


def test_the_tab_key_reaches_everything_and_the_focus_is_visible(open_page):
    page = open_page()
    focusable = "a[href], .box, th button, summary"
    expected = page.locator(focusable).evaluate_all(
        "(all) => all.filter((element) => element.checkVisibility()).length"
    )
    page.evaluate(f"window.focusable = {focusable!r}; window.reached = new Set()")
    for _ in range(expected + 5):
        page.keyboard.press("Tab")
        style = page.evaluate(
            """() => {
              const element = document.activeElement;
              if (!element.matches(window.focusable)) return null;
              window.reached.add(element);
              return getComputedStyle(element).outlineStyle;
            }"""
        )
        assert style in ("solid", None)
    assert page.evaluate("window.reached.size") == expected


def test_the_skip_link_comes_first_and_skips_the_contents(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    skip = page.locator(":focus")
    assert skip.inner_text() == "Skip to the verdict"
    assert skip.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


@all_sizes
@all_schemes
def test_axe_finds_no_accessibility_violation(open_page, size, scheme):
    page = open_page(size=size, color_scheme=scheme)
    open_all(page)
    page.get_by_role("button", name="test accuracy").first.click()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


# Without scripts, and against hostile ones


@all_sizes
def test_without_scripts_the_page_is_complete(open_page, reports, size):
    page = open_page(size=size, java_script_enabled=False)
    verdict = json.loads((reports / "comparisons.json").read_text(encoding="utf-8"))["b"]["verdict"]
    for sentence in verdict:
        assert page.get_by_text(sentence, exact=True).is_visible()
    table = models_table(page)
    assert table.locator("tbody tr").count() == 3
    assert table.locator("tbody tr").first.inner_text().split()[0] == "b-net"
    assert page.locator("button").count() == 0
    assert page.locator("nav a").first.is_visible()
    page.locator("#classes-b summary").click()
    assert page.get_by_role("region", name="Images of each class of b").is_visible()


def test_hostile_names_are_plain_text(open_page):
    page = open_page()
    open_all(page)
    names = page.get_by_role("region", name="Images of each class of b").locator("tbody th").all_inner_texts()
    assert names == HOSTILE
    assert page.locator("script").count() == 1
    assert page.locator("img:not([src^='data:'])").count() == 0
    assert page.locator("[onerror]").count() == 0


def test_the_policy_blocks_injected_scripts(open_page, messages):
    page = open_page()
    page.evaluate(
        """() => {
          document.body.insertAdjacentHTML("beforeend", "<img src='data:,' onerror='alert(4)'>");
          document.body.append(Object.assign(document.createElement("script"), { textContent: "alert(5)" }));
        }"""
    )
    page.wait_for_timeout(300)  # for the picture to fail
    assert len(messages) == 2
    assert all("Content Security Policy" in text for text in messages)
    messages.clear()
