"""`report.html`: it needs nothing else, shows what was compared, and no text in it is more than text."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stv_exp.pipeline import run
from stv_exp.report.frame import predictions, runs
from stv_exp.report.gallery import gallery
from stv_exp.report.html.document import Document
from stv_exp.report.tables import Table
from stv_exp.stages.evaluate import Prediction
from stv_exp.stages.examples import KEPT, SIDE, examples
from tests.report_study import write_study

SWITCHES = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking")
SWITCHES += ("disable-component-update", "disable-sync", "hide-scrollbars")
HOSTILE = "</style></script><script>document.title='taken'</script>\" onload='x' {{ 7 * 7 }} <b>"


@pytest.fixture(scope="module")
def document(tmp_path_factory) -> Document:
    """Of a small sweep in which texts that others choose are hostile."""
    outputs = tmp_path_factory.mktemp("page")
    write_study(outputs, [4, 16, 8], [1, 4], [0, 1], ["shape", "colour"])
    rows, items = runs(outputs), predictions(outputs)
    means = rows.groupby("label")["accuracy"].mean()
    tables = [Table("table", "", ["method", "accuracy"], [[label, f"{mean:.3f}"] for label, mean in means.items()])]
    items.loc[items.index[::40], ["prediction", "question"]] = f"\u202e{HOSTILE}"
    for frame in (rows, items):
        frame["label"] = frame["label"].replace({"few_shot": f"few_shot{HOSTILE}"})
    pictures, _ = gallery(rows, outputs)
    return Document(HOSTILE, rows, items, tables, {}, pictures, [HOSTILE, "Run x is failed: no room"])


@pytest.fixture(scope="module")
def html(document) -> str:
    return document.html()


class Elements(HTMLParser):
    """The elements of a page by name, with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += f" {data}"

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_text_of_others_stays_text(html):
    page = Elements(html)
    assert len(page.of("script")) == len(page.of("style")) == 1 and page.of("b") == []
    assert not any("onload" in attributes for _, attributes in page.found)
    assert page.text.count("<script>document.title='taken'</script>") >= 5, "title, note, label, prediction, question"
    assert "\u202e" not in html, "which would turn the text round"


def test_the_page_reaches_for_nothing(html):
    page = Elements(html)
    reached = [a[key] for _, a in page.found for key in ("src", "href", "xlink:href") if key in a]
    assert reached and all(value.startswith(("#", "data:")) for value in reached)
    assert "default-src 'none'" in page.of("meta")[3]["content"]
    assert not re.search(r"@import|url\((?!#)", html)


def test_every_id_is_there_once_and_every_reference_leads_somewhere(html):
    page = Elements(html)
    ids = Counter(a["id"] for _, a in page.found if "id" in a)
    assert ids and max(ids.values()) == 1
    references = {a["href"][1:] for _, a in page.found if a.get("href", "").startswith("#")}
    assert references | set(re.findall(r"url\(#([^)]+)\)", html)) <= ids.keys()


def test_the_same_runs_make_the_same_page(document, html):
    assert document.html() == html


def test_the_page_has_all_of_a_comparison(html):
    text = re.sub(r"\s+", " ", Elements(html).text)
    for told in ("runs 36", "models 1", "tasks 2", "methods 4", "seeds 2", "torch 2.13.0"):
        assert told in text
    for told in ("By method", "policy.steps", "method=stv dataset.task=shape", "Run x is failed: no room"):
        assert told in text


def test_tables_and_pictures_are_named_for_who_does_not_see_them(html):
    page = Elements(html)
    assert all(attributes.get("aria-label") for attributes in page.of("svg"))
    assert all(attributes.get("alt") for attributes in page.of("img"))
    assert len(page.of("caption")) == len(page.of("table")) and all("scope" in a for a in page.of("th"))


def prediction(query, right: bool) -> Prediction:
    return Prediction(query.id, query.question, list(query.answers), "?", float(right), [])


def test_a_run_keeps_small_pictures_of_what_it_got_right_and_wrong(task):
    kept = examples(task, [prediction(query, i % 6 > 0) for i, query in enumerate(task.evaluation)])
    assert len(kept) == min(len(task.evaluation), 2 * KEPT)
    picture = Image.open(io.BytesIO(base64.b64decode(kept[0]["pictures"][0])))
    assert picture.format == "WEBP" and max(picture.size) <= SIDE


def test_pictures_that_a_run_has_kept_are_held_by_its_checksums(config):
    run(config, [])
    (path,) = Path(config.outputs).glob("runs/*/examples.jsonl")
    assert "examples.jsonl" in json.loads((path.parent / "status.json").read_text())["files"]


@pytest.fixture(scope="module")
def browser(html, tmp_path_factory):
    """Headless Chromium at the page."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed; the extra dev has it")
    places = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in places:
        pytest.skip("Chromium and its driver are not installed (Debian's packages chromium and chromium-driver)")
    folder = tmp_path_factory.mktemp("browser")
    (folder / "report.html").write_text(html, encoding="utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = places[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for switch in (*SWITCHES, f"user-data-dir={folder / 'profile'}"):
        options.add_argument(f"--{switch}")
    with webdriver.Chrome(options, webdriver.ChromeService(places[1])) as driver:
        driver.get((folder / "report.html").as_uri())
        yield driver


def emulate(browser, width: int, **media: str) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": media.get("scheme", "light")}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media.get("medium", ""), "features": features})


def all_of(browser, selector: str, what: str) -> list[Any]:
    """A JavaScript expression over the elements `e` that are to be seen."""
    seen = f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.checkVisibility())"
    return browser.execute_script(f"return {seen}.map(e => {what})")


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_complains_of_nothing(browser, width, scheme):
    emulate(browser, width, scheme=scheme)
    browser.refresh()
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == [] and not browser.title.startswith("taken")
    assert all(all_of(browser, "img", "e.naturalWidth > 0")) and all(all_of(browser, "svg", "e.clientWidth > 100"))
    (styles,) = all_of(browser, "body", "[getComputedStyle(e).color, getComputedStyle(e).backgroundColor]")
    ink, ground = (int(re.findall(r"\d+", style)[0]) for style in styles)
    assert (ink > ground) == (scheme == "dark")


def test_a_click_or_a_key_sorts_by_number_and_by_name(browser):
    emulate(browser, 1280)
    cells = "table.runs tbody tr", "e.cells[{}].textContent"
    header = browser.find_elements("css selector", "table.runs thead button")
    header[3].click()
    accuracies = [float(text) for text in all_of(browser, cells[0], cells[1].format(3))]
    assert len(accuracies) == 36 and accuracies == sorted(accuracies, reverse=True)
    header[3].send_keys("\ue007")
    assert [float(text) for text in all_of(browser, cells[0], cells[1].format(3))] == accuracies[::-1]
    header[0].click()
    labels = list(dict.fromkeys(all_of(browser, cells[0], cells[1].format(0))))
    assert labels[-7:-1] == [f"stv k={k} m={m}" for k in (4, 8, 16) for m in (1, 4)]
    assert all_of(browser, "table.runs thead th", "e.ariaSort")[:4] == ["ascending", "none", "none", "none"]


def test_the_filter_shows_what_it_says(browser):
    emulate(browser, 360)
    browser.find_element("css selector", "input[value='']").send_keys("\ue014\ue014")  # the arrow, twice
    shown = all_of(browser, ".card li", "e.className")
    assert set(shown) == {"wrong"}
    browser.find_element("css selector", "select[name=label]").send_keys("mtv")
    assert set(all_of(browser, ".card li", "e.dataset.label")) == {"mtv"}
    cards = all_of(browser, ".card", "e.querySelectorAll('li:not([hidden])').length")
    assert 0 < len(cards) <= 12 and 0 not in cards
    browser.find_element("css selector", "select[name=task]").send_keys("made/shape")
    assert set(all_of(browser, ".card", "e.dataset.task")) == {"made/shape"}
    assert all_of(browser, ".filter output", "e.textContent") == [f"{len(all_of(browser, '.card', '1'))} queries"]


def test_a_printed_page_has_every_row_and_no_buttons(browser):
    emulate(browser, 720, medium="print")
    assert all_of(browser, "nav, .filter, .more, summary", "e.tagName") == []
    assert all(all_of(browser, ".scroll", "e.scrollHeight <= e.clientHeight + 1"))
    assert len(all_of(browser, ".settings dt", "e.textContent")) > 3, "which are folded on a screen"
