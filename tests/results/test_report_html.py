"""A page that no name and no message can break."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from pipeline.results import report_html
from tests.results.made_output import (
    DAY,
    make,
)


class Tags(HTMLParser):
    """The tags of a page, and its attributes that could load or run something."""

    def __init__(self):
        super().__init__()
        self.tags, self.dangerous = set(), []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        names = {name for name, _ in attributes}
        self.dangerous += [n for n in names if n.startswith("on") or n in {"src", "href", "style", "srcset"}]


def test_no_name_and_no_message_becomes_html(output):
    page = report_html.render_report(make(output), DAY)
    parser = Tags()
    parser.feed(page)
    assert not parser.tags & {"script", "img", "iframe", "link", "object", "a", "form"}
    assert parser.dangerous == []
    assert "&lt;script&gt;alert(" in page
    assert "{{ 7*7 }}" in page
    assert "\u202e" not in page


def test_the_page_forbids_itself_scripts_and_requests(output):
    page = report_html.render_report(make(output), DAY)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "http" not in page.replace("http-equiv", "")


PROBE = """<script>
addEventListener("load", () => {
  const main = document.documentElement;
  const cards = [...document.querySelectorAll(".card")].map((card) => card.getBoundingClientRect());
  const within = (a, b) => a.left < b.right - 1 && a.top < b.bottom - 1;
  const meets = (a, b) => within(a, b) && within(b, a);
  const overlaps = cards.filter((a, i) => cards.some((b, j) => i < j && meets(a, b))).length;
  const outside = [...document.querySelectorAll("svg text")].filter((text) => {
    const box = text.getBoundingClientRect(), frame = text.closest("svg").getBoundingClientRect();
    return box.right > frame.right + 1 || box.left < frame.left - 1;
  }).length;
  document.title = JSON.stringify({wide: main.scrollWidth - main.clientWidth, overlaps, outside});
});
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_overflows_or_overlaps_in_a_browser(output, tmp_path, width):
    page = report_html.render_report(make(output), DAY)
    without_policy = re.sub(r"<meta http-equiv=.Content-Security-Policy.[^>]*>", "", page)
    (tmp_path / "page.html").write_text(without_policy.replace("</body>", f"{PROBE}</body>"))
    command = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1200"),
        *("--dump-dom", f"file://{tmp_path / 'page.html'}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert found is not None, done.stdout[:500]
    assert json.loads(found[1]) == {"wide": 0, "overlaps": 0, "outside": 0}
