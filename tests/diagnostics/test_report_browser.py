"""The page in a real headless browser, on a phone's width and on a desk's; skipped, visibly, where there is no chromium."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cm2pyro.diagnostics.report.build import build
from cm2pyro.diagnostics.report.material import Source
from cm2pyro.diagnostics.report.page import write
from tests.diagnostics.report_cases import material, mixture

pytestmark = pytest.mark.slow

EVIL = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">$x^$"


def found(*names: str) -> str | None:
    return next((path for path in map(shutil.which, names) if path), None)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three modalities, names and run foreign to HTML."""
    names = (f"labs {EVIL}", "a_modality_with_a_very_long_name_that_no_phone_can_hold_in_one_line_" + "x" * 60, "note")
    m = material(mixture(3, 2, 3, 0.5), n=300, names=names, source=Source(f"run {EVIL}", f"{EVIL}.csv"))
    path = tmp_path_factory.mktemp("report") / "report.html"
    write(build(m), path)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    binary, driver = found("chromium", "chromium-browser", "google-chrome"), found("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    profile = tmp_path_factory.mktemp("profile")
    switches = (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-background-networking",
        "disable-component-update",
    )
    for switch in (*switches, "disable-sync", "no-first-run", f"user-data-dir={profile}"):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # A proxy of the machine must not stand between the driver and its browser.
    os.environ["NO_PROXY"] = os.environ.get("NO_PROXY", "") + ",localhost,127.0.0.1"
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield made
    made.quit()


def opened(browser: Any, page: Path, width: int, dark: bool = False) -> list[str]:
    """Show the page; the addresses that it asked for."""
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(page.as_uri())
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_stands_by_itself_and_fits(browser: Any, page: Path, width: int) -> None:
    asked = opened(browser, page, width)
    assert page.as_uri() in asked
    assert [url for url in asked if url != page.as_uri() and not url.startswith("data:")] == []
    assert browser.get_log("browser") == []
    assert browser.title.startswith("run <script>")  # the text, which did not run
    assert browser.execute_script("return document.scripts.length") == 0
    # scrollWidth is that of the widest thing on the page, if it is wider than the window.
    inner, widest = browser.execute_script("return [window.innerWidth, document.documentElement.scrollWidth]")
    assert inner == width
    assert widest <= width
    images = browser.execute_script("return [...document.images].map(i => [i.naturalWidth, i.getBoundingClientRect().width, i.alt])")
    assert len(images) > 25
    assert all(natural > 300 and 200 < shown <= width and alt for natural, shown, alt in images)


def test_links_of_the_warnings_lead_to_their_sections(browser: Any, page: Path) -> None:
    opened(browser, page, 360)
    targets = browser.execute_script("return [...document.querySelectorAll('nav a, .findings a')].map(a => a.getAttribute('href'))")
    assert len(targets) > 10
    assert browser.execute_script("return arguments[0].filter(t => !document.querySelector(t))", targets) == []


def test_a_wide_table_scrolls_inside_itself(browser: Any, page: Path) -> None:
    opened(browser, page, 360)
    boxes = browser.execute_script("return [...document.querySelectorAll('.table > div')].map(d => [d.scrollWidth, d.clientWidth])")
    assert any(inside > outside for inside, outside in boxes)
    assert all(outside <= 360 for _, outside in boxes)


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_in_light_and_dark(browser: Any, page: Path, dark: bool) -> None:
    """Contrast of at least 4.5 : 1 (WCAG AA) for body, notes, warnings and captions."""
    opened(browser, page, 1280, dark)
    script = """
    const rgb = c => c.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const light = c => rgb(c).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = e => { while (e && getComputedStyle(e).backgroundColor.endsWith(', 0)')) e = e.parentElement;
      return e ? getComputedStyle(e).backgroundColor : 'rgb(255, 255, 255)'; };
    return ['p', '.findings .note', '.findings .note b', '.findings .note a', 'figcaption p', 'td', '.caption'].map(s => {
      const e = document.querySelector(s), a = light(getComputedStyle(e).color), b = light(ground(e));
      return [s, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]; });
    """
    found_contrast = dict(browser.execute_script(script))
    assert min(found_contrast.values()) > 4.5, found_contrast
    body = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (body == "rgb(255, 255, 255)") == (not dark)


def test_the_page_prints(browser: Any, page: Path) -> None:
    opened(browser, page, 1280)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert browser.execute_script("return getComputedStyle(document.querySelector('.table > div')).overflowX") == "visible"
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    assert printed["data"].startswith("JVBERi0")  # %PDF-
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
