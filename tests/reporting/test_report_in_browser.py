"""report.html in a real browser: no message, no request, no sideways scrolling; sorting, filtering and zoom.

Needs chromium (`apt-get install chromium`) and playwright, which drives it; see docs/development.md.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from cad_exp.cli import report
from cad_exp.reporting.html import run_page
from cad_exp.reporting.results import load_results
from tests.reporting.finished_runs import METRICS, attribute_run, metric, requests
from tests.reporting.test_report import HOSTILE, edited, gates, sweep

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium, or CHROMIUM=its path"),
]
sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[dev]'")


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A page, and all that it said in the console or asked of the network."""

    def __init__(self, browser: "sync_api.Browser", path: Path, **how):
        self.context = browser.new_context(**how)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.own = path.as_uri()

    def close(self) -> None:
        """Nothing was said, and nothing but the file itself and its own data was asked for."""
        asked = [each for each in self.asked if each != self.own and not each.startswith("data:")]
        self.context.close()
        assert not self.said and not asked

    def column(self, table: str, number: int) -> list[str]:
        shown = self.page.locator(f"{table} tbody tr:visible")
        return [row.locator("th, td").nth(number).inner_text().strip() for row in shown.all()]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with 60 images and a hostile prompt among them."""
    prompts = (("concept", "a photo of a church"), ("retention", "a photo of a tench"), ("retention", HOSTILE))
    folder = attribute_run(tmp_path_factory.mktemp("browser") / "run", requests(prompts, 20), number=40)
    assert report.main([str(folder)]) == 0
    return folder / "report.html"


@pytest.fixture
def opened(browser, run) -> Iterator[Opened]:
    page = Opened(browser, run)
    yield page
    page.close()


def test_hostile_text_runs_nothing(opened: Opened):
    assert opened.page.evaluate("window.hacked") is None
    opened.page.select_option("#gallery-prompt", index=3)
    opened.page.locator("#zoom-layer").focus()
    assert opened.page.evaluate("window.hacked") is None


def test_the_table_of_components_is_sorted_and_filtered(opened: Opened):
    page, table = opened.page, "#components-table"
    head = page.locator(f"{table} thead th", has_text="score")
    assert head.get_attribute("aria-sort") is None
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending" and opened.column(table, 0)[:2] == ["1", "2"]
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending" and opened.column(table, 0)[:2] == ["40", "39"]
    page.locator(f"{table} thead th", has_text="layer").get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None and page.locator("[aria-sort]").count() == 1
    layers = opened.column(table, 2)
    assert layers == sorted(layers) and len(set(layers)) == 2
    page.fill("#components-filter", "down cross-attention")
    assert set(opened.column(table, 2)) == {"down 0, transformer 0"} and "20 of 40" in page.inner_text(
        "#components-count"
    )
    page.fill("#components-filter", "nothing of this name")
    assert opened.column(table, 2) == []


def test_numbers_are_sorted_as_numbers_and_missing_ones_come_last(browser, tmp_path: Path):
    said = [metric(name, "edited", value) for name, value in (("a", 9.0), ("b", 10.0), ("c", -2.0))]
    said += [metric("d", "unedited", 1.0), *METRICS[-1:]]
    assert report.main([str(attribute_run(tmp_path / "run", metrics=said))]) == 0
    opened = Opened(browser, tmp_path / "run" / "report.html")
    table = "#metrics table >> nth=0"
    button = opened.page.locator(f"{table} >> thead th", has_text="edited").last.get_by_role("button")
    names = lambda: [cell.inner_text()[0] for cell in opened.page.locator(f"{table} >> tbody th").all()]  # noqa: E731
    button.click()
    assert names() == ["b", "a", "c", "d"]
    button.click()
    assert names() == ["c", "a", "b", "d"]
    opened.close()


def test_the_gallery_is_filtered_sorted_and_unfolded(opened: Opened):
    page = opened.page
    shown = page.locator("#gallery-strips li:visible")
    assert shown.count() == 12 and "12 of 60" in page.inner_text("#gallery-count")
    page.click("#gallery-more")
    assert shown.count() == 24
    page.select_option("#gallery-prompt", label="a photo of a tench")
    assert {each.get_attribute("data-prompt") for each in shown.all()} == {"1"} and shown.count() == 12
    page.select_option("#gallery-prompt", value="")
    page.select_option("#gallery-sort", "least")
    assert [each.get_attribute("data-change") for each in shown.all()][:3] == ["1.0", "2.0", "3.0"]
    page.select_option("#gallery-sort", "most")
    assert shown.first.get_attribute("data-change") == "60.0"


def test_the_map_zooms_to_a_component_by_mouse_and_by_keyboard(opened: Opened):
    page, card = opened.page, opened.page.locator("#zoom-card")
    assert "neuron 0" in card.inner_text() and "rank 1 of 40" in card.inner_text()
    assert "± 0.010" in card.inner_text() and "overlap" in card.inner_text()
    page.locator(".layer").nth(1).click(position={"x": 40, "y": 10})
    assert "neuron 1\n" in card.inner_text() and "feed-forward" in card.inner_text()
    page.focus("#zoom-rank")
    page.keyboard.press("End")
    assert "neuron 39" in card.inner_text() and "suppresses the concept" in card.inner_text()
    page.get_by_role("button", name="zoom to down 0, transformer 0 · cross-attention · neuron 2", exact=True).click()
    assert "neuron 2\n" in card.inner_text() and "back up" in card.inner_text()
    card.get_by_role("button").first.press("Enter")  # to its first neighbour
    assert "neuron 0\n" in card.inner_text()
    assert page.evaluate("document.activeElement.id") == "zoom-rank"
    assert "The edit" not in card.inner_text()  # this run has none


def test_a_component_says_what_the_edit_does_to_it(browser, tmp_path: Path):
    """The best neuron is weakened; from the end of the second layer one is left alone and one reversed."""
    assert report.main([str(edited(tmp_path / "run", gates(0.5, 0.0, -1.0, 2.0, 1.0)))]) == 0
    opened = Opened(browser, tmp_path / "run" / "report.html")
    card, said = opened.page.locator("#zoom-card"), []
    said.append(card.inner_text())
    opened.page.locator(".layer").nth(1).click(position={"x": 40, "y": 10})
    opened.page.focus("#zoom-rank")
    for key in ("End", "ArrowLeft", "ArrowLeft"):
        opened.page.keyboard.press(key)
        said.append(card.inner_text())
    opened.close()
    does = ["multiplies it by 0.90.", "leaves it as it is.", "multiplies it by 2.00.", "multiplies it by −1.00."]
    assert all(f"The edit {what}" in text for what, text in zip(does, said, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(browser, run, width: int, scheme: str):
    opened = Opened(browser, run, viewport={"width": width, "height": 800}, color_scheme=scheme)
    opened.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    opened.close()


def test_what_has_the_focus_is_seen(opened: Opened):
    """The first stops of the tab key: each draws an outline."""
    for _ in range(6):
        opened.page.keyboard.press("Tab")
        outline = opened.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", opened.page.evaluate("document.activeElement.outerHTML")


def test_text_and_pictures_need_no_script(browser, run):
    opened = Opened(browser, run, java_script_enabled=False)
    page = opened.page
    assert page.locator("#gallery-strips li:visible").count() == 60 and not page.locator(".tools:visible").count()
    assert page.locator("#components-table tbody tr:visible").count() == 40 and page.locator("svg.map path").count()
    assert page.locator("thead button").count() == 0 and not page.locator("#zoom:visible").count()
    opened.close()


def test_a_print_shows_what_matters(opened: Opened):
    """All images, and nothing that only a screen can use; settings only where somebody opened them."""
    page = opened.page
    page.emulate_media(media="print")
    page.evaluate("document.querySelector('details.settings').open = true")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#gallery-strips li:visible").count() == 60
    assert page.locator("details:not(.settings)").count() and not page.locator("details:not([open], .settings)").count()
    assert page.locator("details.settings[open]").count() == page.locator("details.settings:visible").count() == 1
    assert not page.locator("nav:visible, form:visible, #zoom:visible, .js:visible, input:visible").count()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 1


def test_heads_of_tables_are_printed_once_and_without_arrows(opened: Opened):
    opened.page.emulate_media(media="print")
    style = "each => [getComputedStyle(each.closest('thead')).display, getComputedStyle(each, '::after').content]"
    assert opened.page.locator("thead button").first.evaluate(style) == ["table-row-group", "none"]


@pytest.mark.parametrize(
    ("width", "words", "side"), [(1280, ("Left", "Right"), True), (390, ("Above", "Below"), False)]
)
def test_both_predictions_stand_where_the_text_says(browser, tmp_path: Path, width, words, side):
    folder = attribute_run(tmp_path / "run")
    table = pd.read_parquet(folder / "fidelity.parquet")
    table.assign(second=table["true"]).to_parquet(folder / "fidelity.parquet")
    opened = Opened(
        browser, run_page.write(folder, load_results(folder), folder), viewport={"width": width, "height": 800}
    )
    text = opened.page.locator("#fidelity p").first.inner_text()
    assert f"{words[0]}: sums of scores. {words[1]}: with interactions counted." in text
    first, second = (each.bounding_box() for each in opened.page.locator("#fidelity figure").all())
    assert first and second and (first["y"] == second["y"]) == side and (first["x"] == second["x"]) != side
    opened.page.emulate_media(media="print")
    first, second = (each.bounding_box() for each in opened.page.locator("#fidelity figure").all())
    assert first and second and first["y"] == second["y"] and opened.page.locator("#fidelity .beside:visible").count()
    opened.close()


def swiped(opened: Opened) -> list[bool]:
    """Return whether each part that may be wider than the page says so."""
    opened.page.wait_for_timeout(200)  # two frames
    said = "each => each.map(one => getComputedStyle(one, '::before').content.includes('Swipe'))"
    return opened.page.locator(".scroll").evaluate_all(said)


def test_what_lies_beside_a_phone_is_hinted_at(browser, run):
    """Above every part that is wider, and above no other; folded ones once they are open; never on a large screen."""
    opened = Opened(browser, run, viewport={"width": 390, "height": 800})
    opened.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    hinted = swiped(opened)
    wider = opened.page.locator(".scroll").evaluate_all(
        "each => each.map(one => one.scrollWidth > one.clientWidth + 1)"
    )
    assert hinted == wider and any(wider) and not all(wider)
    opened.page.set_viewport_size({"width": 1280, "height": 800})
    assert not any(swiped(opened))
    opened.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_no_field_cuts_its_words(browser, run, width: int):
    """There is room for the whole placeholder, and for the longest layer with its number."""
    opened = Opened(browser, run, viewport={"width": width, "height": 800})
    words = "one => { const text = document.createElement('canvas').getContext('2d'), own = getComputedStyle(one);"
    words += "text.font = own.font; const side = parseFloat(own.paddingLeft) + parseFloat(own.paddingRight);"
    words += "return one.clientWidth - side - Math.max(...Array.from(one.options || [], each => each.text)"
    words += ".concat(one.placeholder || []).map(each => text.measureText(each).width)); }"
    assert opened.page.locator("#components-filter").evaluate(words) > 16  # its cross
    assert opened.page.locator("#zoom-layer").evaluate(words) > 16  # its arrow
    opened.close()


def test_a_sweep_in_a_browser(browser, tmp_path: Path):
    folder = sweep(tmp_path / "sweep")
    assert report.main([str(folder)]) == 0
    opened = Opened(browser, folder / "report.html", viewport={"width": 390, "height": 800})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    opened.page.locator("#runs-table thead th").first.get_by_role("button").click()
    opened.page.fill("input[type=search]", "tench")
    assert opened.column("#runs-table", 0) == ["concept=tench"]
    assert not opened.said
    opened.page.get_by_role("link", name="concept=tench").click()
    assert opened.page.inner_text("h1") == "tench in mini" and not opened.said
    opened.context.close()


def test_names_stay_in_sight_where_a_table_is_wider_than_a_phone(browser, run):
    opened = Opened(browser, run, viewport={"width": 390, "height": 800})
    table = opened.page.locator(".scroll:has(table)").first
    name = table.locator("tbody th").first
    before = name.bounding_box()
    table.evaluate("each => each.scrollLeft = 150")
    assert table.evaluate("each => each.scrollLeft") == 150 and name.bounding_box() == before
    opened.close()
