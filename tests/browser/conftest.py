"""A headless browser that is installed on this machine."""

import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="session")
def browser():
    """Chromium or Chrome; the environment variable SKFAIR_CHROMIUM may say where it is."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="browser tests need the extra test-browser"
    )
    found = os.environ.get("SKFAIR_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("browser tests need Chromium or Chrome on the PATH, or SKFAIR_CHROMIUM")
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium has no sandbox for root
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=found, args=["--no-sandbox"] if root else []
        )
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Open a report; the test fails if the page loads, logs or asks anything."""
    contexts, wrong = [], []

    def open_report(report, width=1280, scheme="light", scripts=True):
        path = report.to_html(tmp_path / "report.html")
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            java_script_enabled=scripts,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda request: request.url == path.as_uri() or wrong.append(request.url),
        )
        page.goto(path.as_uri())
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert wrong == []
