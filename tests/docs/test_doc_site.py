"""The built site: no warning, a page for every rule at the address that the tool prints, no dead link, nothing from outside."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from blocks import ROOT

from adapterlint.findings import DOC_URL
from adapterlint.rules.registry import all_rules

pytest.importorskip("mkdocs")
pytest.importorskip("material")

SITE = "https://adapterlint.readthedocs.io/"


class Links(HTMLParser):
    """The links, the loaded resources and the anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors.add(found.get("id") or "")
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        if tag in ("script", "img", "iframe") and found.get("src"):
            self.loaded.append(str(found["src"]))
        if tag == "link" and found.get("rel") != "canonical" and found.get("href"):
            self.loaded.append(str(found["href"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    found = {}
    for path in site.rglob("*.html"):
        found[path] = Links()
        found[path].feed(path.read_text())
    return found


def test_every_rule_has_a_page_where_the_tool_says(site: Path) -> None:
    for rule in all_rules():
        path = site / f"{DOC_URL}{rule.name}/".removeprefix(SITE) / "index.html"
        assert path.exists(), rule.name
        assert rule.code in path.read_text()


def test_schemas_are_where_their_id_says(site: Path) -> None:
    for path in (ROOT / "schemas").glob("*.json"):
        address = json.loads(path.read_text()).get("$id", "")
        if address.startswith(SITE):
            assert (site / address.removeprefix(SITE)).read_text() == path.read_text()


def test_no_link_is_dead(site: Path, pages: dict[Path, Links]) -> None:
    dead = [
        f"{page.relative_to(site)}: {link}"
        for page, found in pages.items()
        if page.name != "404.html"
        for link in found.links
        if not _alive(site, pages, page, link)
    ]
    assert not dead


def _alive(site: Path, pages: dict[Path, Links], page: Path, link: str) -> bool:
    if link.startswith(SITE):
        page, link = site / "index.html", link.removeprefix(SITE) or "."
    parts = urlsplit(link)
    if parts.scheme:
        return True
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir():
        target = target / "index.html"
    if not target.exists():
        return False
    return target not in pages or parts.fragment in {"", *pages[target].anchors}


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Links]) -> None:
    assert not {url for found in pages.values() for url in found.loaded if re.match(r"(https?:)?//", url)}


def test_every_page_is_in_the_navigation(site: Path) -> None:
    text = (site / "index.html").read_text()
    for path in (ROOT / "docs").rglob("*.md"):
        name = str(path.relative_to(ROOT / "docs").with_suffix(""))
        assert name == "index" or f'href="{name}/"' in text, name
