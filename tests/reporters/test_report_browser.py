"""The HTML report in Chromium: filter, keyboard, dark colours, contrast, and that nothing is asked of any network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_util import CHROMIUM, Browser

from adapterlint.report import Report
from adapterlint.reporters import html
from adapterlint.rules.examples import Example, llama_tensors, lora_config, write
from adapterlint.run import Request, check

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (apt-get install chromium)")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def report() -> Report:
    paths = [
        str(ROOT / "fixtures" / name)
        for name in ("sets", "hostile/config-truncated", "hostile/value-targets-slow-regex")
    ]
    return check(Request(paths, ["peft>=0.6"], base=str(ROOT / "fixtures" / "base" / "seed")))


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Browser:
    file = tmp_path / "report.html"
    file.write_text(html.render(report()), encoding="utf-8")
    browser.dark(False)
    browser.open(file)
    return browser


def shown(browser: Browser, selector: str) -> list[str]:
    """Texts of the elements that can be seen."""
    found = f"[...document.querySelectorAll('{selector}')].filter(e => e.checkVisibility()).map(e => e.innerText)"
    texts: list[str] = browser.run(found)
    return texts


def test_nothing_is_requested_and_nothing_complains(page: Browser) -> None:
    assert [url for url in page.requested() if not url.startswith("data:")] == [page.run("location.href")]
    assert page.complaints() == []


def test_every_cell_says_in_words_what_happens(page: Browser) -> None:
    cells = shown(page, "#matrix td")
    assert cells
    words = ("loads", "raises", "wrong", "inert", "unknown")
    assert all(any(word in cell for word in words) for cell in cells)
    assert {"✗", "≠", "✓", "?"} <= {char for cell in cells for char in cell}


def test_the_filter_works(page: Browser) -> None:
    rows, findings = len(shown(page, "#matrix tbody tr")), len(shown(page, "article"))
    page.press("/", "/")
    assert page.run("document.activeElement.id") == "query"
    page.type("AL501")
    assert page.run("document.getElementById('query').value") == "AL501"
    assert [text.split("\n")[0] for text in shown(page, "article")] == ["error AL501 differing-saved-modules"]
    (row,) = shown(page, "#matrix tbody tr")
    assert "a + b + c + d" in row
    assert shown(page, "#count") == [f"1 of {rows} rows, 1 of {findings} findings"]
    page.press("Escape")
    page.run("new Promise(done => setTimeout(done, 50))")
    assert len(shown(page, "#matrix tbody tr")) == rows and len(shown(page, "article")) == findings


def test_outcomes_and_severities_are_filters_too(page: Browser) -> None:
    def choose(name: str, value: str) -> None:
        page.run(
            f"(e => {{ e.value = '{value}'; e.dispatchEvent(new Event('input', {{bubbles: true}})) }})"
            f"(document.getElementById('{name}'))"
        )

    choose("outcome", "unknown")
    rows = shown(page, "#matrix tbody tr")
    assert rows and all("unknown" in row for row in rows)
    assert len(rows) < page.run("document.querySelectorAll('#matrix tbody tr').length")
    choose("severity", "error")
    assert {text.split()[0] for text in shown(page, "article")} == {"error"}


def test_reasons_open_by_keyboard(page: Browser) -> None:
    page.run("document.querySelector('td.raises summary').focus()")
    assert not page.run("document.querySelector('td.raises details').open")
    page.press("Enter", "\r")
    assert page.run("document.querySelector('td.raises details').open")
    assert "AL" in page.run("document.querySelector('td.raises details p').innerText")
    reached = {"theme"}
    page.run("document.getElementById('theme').focus()")
    for _ in range(12):
        page.press("Tab")
        reached.add(page.run("document.activeElement.id || document.activeElement.className"))
    assert {"theme", "query", "outcome", "severity", "scroll"} <= reached


CONTRAST = """(() => {
  const numbers = (color) => color.match(/[0-9.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = numbers(color).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = (e) => {
    const color = getComputedStyle(e).backgroundColor;
    return numbers(color)[3] === 0 ? (e.parentElement ? paper(e.parentElement) : "rgb(255, 255, 255)") : color;
  };
  let worst = 99;
  for (const e of document.querySelectorAll("body *")) {
    if (!e.checkVisibility() || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(paper(e))];
    worst = Math.min(worst, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return worst;
})()"""


def test_dark_colours(page: Browser) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.run(paper) == "rgb(255, 255, 255)"
    assert page.run(CONTRAST) >= 4.5  # WCAG 2, level AA
    page.dark(True)
    dark = page.run(paper)
    assert dark == "rgb(13, 17, 23)"
    assert page.run(CONTRAST) >= 4.5
    page.run("document.getElementById('theme').click()")
    assert page.run(paper) == "rgb(255, 255, 255)"
    page.dark(False)
    page.run("document.getElementById('theme').click()")
    assert page.run(paper) == dark


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "<img src=x onerror=document.title='taken'>\"'</title>"
    attack = "</script><script>document.title='taken'</script><img src='http://127.0.0.1:9/x'>"
    tensors = {**llama_tensors(4), f"{attack}.lora_A.weight": ("F32", (4, 16))}
    write(Example("hostile", lora_config(r=8), tensors), Path(name.replace("/", "\u2215")))
    file = tmp_path / "report.html"
    file.write_text(html.render(check(Request([name.replace("/", "\u2215")]))), encoding="utf-8")
    browser.open(file)
    assert browser.run("document.images.length") == 0
    assert browser.run("document.scripts.length") == 1
    assert browser.run("document.title").startswith("adapterlint: ")
    assert attack[:40] in browser.run("document.body.innerText")
    assert [url for url in browser.requested() if not url.startswith(("data:", "file:"))] == []


def test_the_policy_stops_what_is_put_in_later(page: Browser) -> None:
    """The policy by itself: a script or an image that came in after all would not run or load."""
    page.run(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.taken = 1';"
        "document.body.append(s); const i = new Image(); i.src = 'http://127.0.0.1:9/x'; document.body.append(i); })()"
    )
    page.run("new Promise(done => setTimeout(done, 100))")
    assert page.run("window.taken") is None
    assert any("Content Security Policy" in text for text in page.complaints())


def test_it_can_be_read_without_scripts(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(html.render(report()), encoding="utf-8")
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(file)
        text = browser.send("DOM.getDocument", depth=-1)
        assert "differing-saved-modules" in str(text)
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)
