"""Check the built pages: `python docs/check_pages.py docs/_build/html`.

Every page has a title, each link inside the site leads somewhere, each image has an alternative
text, and no page shows a path of the machine that built it. Where the extra `test-browser` and a
Chromium are installed, a headless browser also looks at each page: axe finds no violation, no title
is cut, and nothing scrolls sideways on a phone. The exit code is 1 if a page has a problem.
"""

import importlib.util
import os
import re
import shutil
import sys
import tempfile
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LINKS = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src"}
SOURCE = "_modules"  # the code of the package, which Sphinx shows
STATIC = "_static"  # files of the theme, among them templates
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# What tells the home of somebody, whatever machine checks the pages.
HOMES = re.compile(r"/home/\w+/|/Users/\w+/|[A-Z]:\\Users\\|file:///")


class Page(HTMLParser):
    """What a page links to, what can be linked to in it, its images, its title."""

    def __init__(self, path):
        super().__init__()
        self.title, self.ids, self.links, self.images = "", set(), [], []
        self._in_title = False
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids.update(filter(None, (attributes.get("id"), attributes.get("name"))))
        if tag in LINKS and attributes.get(LINKS[tag]):
            self.links.append(attributes[LINKS[tag]])
        if tag == "img":
            self.images.append((attributes.get("src") or "", attributes.get("alt")))
        self._in_title = tag == "title" and not self.title

    def handle_endtag(self, tag):
        self._in_title = False

    def handle_data(self, data):
        if self._in_title:
            self.title += data.strip()


def machine_paths():
    """Folders of this machine that no page may show."""
    root = Path(__file__).resolve().parents[1]
    folders = {
        root,
        Path.home(),
        Path(tempfile.gettempdir()),
        Path(sys.prefix),
        Path(sys.base_prefix),
    }
    return sorted(f"{folder}{os.sep}" for folder in folders if len(folder.parts) > 1)


def _list_pages(folder, without):
    return [
        path
        for path in sorted(folder.rglob("*.html"))
        if path.relative_to(folder).parts[0] not in without
    ]


def _dead_links(path, pages, folder):
    for link in sorted(set(pages[path].links)):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        if parts.path.startswith("/"):
            yield f"link {link} leaves the site where it is not at the root of its host"
            continue
        target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file() or folder not in target.parents:
            yield f"dead link {link}"
        elif (
            parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids
        ):
            yield f"dead anchor {link}"


def _check_page(path, pages, folder, paths):
    page = pages[path]
    if not page.title:
        yield "no title"
    for source, alternative in page.images:
        # Sphinx takes the address of an image where no text is given.
        if alternative is None or (alternative and alternative.endswith(Path(source).name)):
            yield f"no alternative text for the image {source}"
    text = unescape(page.text)
    found = {shown for shown in paths if re.search(rf"(?<![\w.]){re.escape(shown)}", text)}
    if path.relative_to(folder).parts[0] != SOURCE:
        found.update(HOMES.findall(text))
    for shown in sorted(found):
        yield f"path of a machine: {shown}"
    yield from _dead_links(path, pages, folder)


def check_pages(folder, paths=None):
    """Return the problems of all pages in a folder, one line each."""
    folder = Path(folder).resolve()
    pages = {path: Page(path) for path in _list_pages(folder, without={STATIC})}
    if not pages:
        return [f"{folder}: no pages"]
    paths = machine_paths() if paths is None else paths
    return [
        f"{path.relative_to(folder)}: {problem}"
        for path in pages
        for problem in _check_page(path, pages, folder, paths)
    ]


def find_browser():
    """Return the program of a browser, or None, and what is missing."""
    for module in ("playwright", "axe_playwright_python"):
        if importlib.util.find_spec(module) is None:
            return None, "the extra test-browser"
    found = os.environ.get("SKFAIR_CHROMIUM") or next(
        filter(None, map(shutil.which, CHROMIUM)), None
    )
    return found, None if found else "Chromium on the PATH, or SKFAIR_CHROMIUM"


def look_at_pages(folder, program):
    """Return what a headless browser finds: violations of axe, cut titles, sideways scrolling."""
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    folder, problems, axe = Path(folder).resolve(), [], Axe()
    pages = _list_pages(folder, without={STATIC, SOURCE})
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium has no sandbox for root
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=program, args=["--no-sandbox"] if root else []
        )
        for width, scheme in [(1280, "light"), (390, "dark")]:
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme
            )
            # The pages are judged without the network, which no page needs.
            context.route(re.compile(r"^https?:"), lambda route: route.abort())
            tab = context.new_page()
            for path in pages:
                tab.goto(path.as_uri())
                where = f"{path.relative_to(folder)}, {width} px, {scheme}"
                problems += [
                    f"{where}: axe: {found['id']}: {found['nodes'][0]['target']}"
                    for found in axe.run(tab).response["violations"]
                ]
                if tab.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
                    problems.append(f"{where}: scrolls sideways")
                if tab.evaluate(
                    "[...document.querySelectorAll('h1')]"
                    ".some(title => title.scrollWidth > title.clientWidth + 1)"
                ):
                    problems.append(f"{where}: the title is cut")
        browser.close()
    return problems


def main(folder):
    problems = check_pages(folder)
    program, missing = find_browser()
    if program:
        problems += look_at_pages(folder, program)
    else:
        print(f"Not looked at in a browser: {missing} is missing.")
    print(*problems, f"Problems: {len(problems)}", sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
