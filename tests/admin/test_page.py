"""The live page in a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.admin import call
from support.browser import Page, browser, requires_chromium
from support.daemon import Process, daemon, eventually, free_port, get
from support.load import app

pytestmark = [requires_chromium, pytest.mark.system]

SITES = """{
	admin localhost:PORT
}
unix/x.sock {
	python {
		module_wsgi main:wsgi
		workers 2
	}
}
unix/t.sock {
	python {
		module_wsgi main:wsgi
		working_dir {host}
	}
}
"""
HOSTILE = app("2", "raise LookupError('<img src=x onerror=document.title=1> \\x1b[31mno database')\n")
CONTRAST = """
(() => {
  const parse = (text) => text.match(/[0-9.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const seen = document.querySelectorAll("h1, h2, p, th, td, dt, dd, a, button, .badge, summary, pre");
  return [...seen].filter((e) => e.innerText && e.offsetParent).map((e) => {
    const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(behind(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.tagName + " " + e.className + " " + e.innerText.slice(0, 30)];
  }).sort((x, y) => x[0] - y[0])[0];
})()
"""


class Site(NamedTuple):
    folder: Path
    process: Process
    page: Page
    port: int


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "ann.test").mkdir()
    for place in (tmp_path, tmp_path / "ann.test"):
        (place / "main.py").write_text(app("1"))
    port = free_port()
    with daemon(tmp_path, SITES.replace("PORT", str(port))) as process, browser() as page:
        assert get("/", path=tmp_path / "t.sock", Host="ann.test")[0] == 200
        page.appear(1280, 900, dark=False)
        page.open(f"http://localhost:{port}/")
        page.until("document.querySelectorAll('#app-rows > tr').length === 2")
        yield Site(tmp_path, process, page, port)


def look(site: Site, name: str) -> None:
    """Keep a picture for a person, if one asks for it with ``CADDYSNAKE_SCREENSHOTS=folder``."""
    folder = os.environ.get("CADDYSNAKE_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        site.page.screenshot(Path(folder) / f"{name}.png")


def version(site: Site) -> str:
    return get("/", path=site.folder / "x.sock")[1].split()[0].decode()


def test_it_lives_and_shows_in_every_light_and_width(site: Site) -> None:
    page = site.page
    for _ in range(5):
        assert version(site) == "1"
    page.until("document.getElementById('live').textContent === 'live'")
    page.until("document.querySelector('#tiles').innerText.includes('Workers ready')")
    page.until("document.querySelector('#app-rows svg polyline').getAttribute('points').length > 0")
    page.evaluate("document.querySelectorAll('#app-rows button.name').forEach((each) => each.click())")
    text = page.evaluate("document.body.innerText")
    assert "one app takes every request" in text
    assert "the app depends on {http.request.host}" in text
    backgrounds = set()
    for name, width, dark in (
        ("light", 1280, False),
        ("dark", 1280, True),
        ("narrow", 390, False),
        ("tiny", 320, True),
    ):
        page.appear(width, 900, dark=dark)
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        ratio, where = page.evaluate(CONTRAST)
        assert ratio >= 4.5, (name, ratio, where)
        look(site, name)
    assert len(backgrounds) == 2
    unnamed = "[...document.querySelectorAll('button, input, a')].filter((e) => !(e.innerText || e.ariaLabel)).length"
    assert page.evaluate(unnamed) == 0
    assert page.errors == []
    response = call(site.port, "GET", "/")
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    assert b"http://" not in response.body.replace(b"http://www.w3.org", b"")


def test_everything_can_be_done_with_the_keyboard_and_what_apps_say_is_text(site: Site) -> None:
    page = site.page
    (site.folder / "main.py").write_text(HOSTILE)
    for _ in range(20):
        page.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Reload main:wsgi":
            break
    page.press("Enter")
    page.until("document.querySelector('#result .bad') !== null")
    assert "<img src=x" in page.evaluate("document.getElementById('result').innerText")
    page.until("document.querySelector('#alerts summary') !== null")
    page.press("Space")  # the focus is where it was, also after everything was painted anew
    page.until("document.querySelector('#result .bad') !== null")
    assert page.evaluate("document.activeElement.textContent") == "Reload main:wsgi"
    page.evaluate("document.querySelector('#app-rows button.name').focus()")
    page.press("Enter")
    page.until("document.querySelector('#app-rows pre').innerText.includes('LookupError')")
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.evaluate("document.title") == "⚠ caddysnake"
    assert version(site) == "1"
    look(site, "refused")
    (site.folder / "main.py").write_text(app("3"))
    page.evaluate("document.getElementById('reload').click()")
    page.until("document.querySelector('#result .good')?.innerText.includes('reloaded in')")
    assert version(site) == "3"
    page.until("document.querySelector('#alerts').children.length === 0")


def test_a_tenant_is_found_and_put_to_sleep(site: Site) -> None:
    page = site.page
    page.evaluate(
        "const f = document.getElementById('filter'); f.value = 'ANN'; f.dispatchEvent(new Event('input')); 1"
    )
    page.until("document.querySelectorAll('#app-rows > tr').length === 1")
    page.evaluate("[...document.querySelectorAll('button')].find((e) => e.innerText.startsWith('Evict')).click()")
    page.until("document.getElementById('result').innerText.includes('its next request starts it')")
    page.until("document.querySelectorAll('#app-rows > tr').length === 0")
    assert [each["key"] for each in call(site.port, "GET", "/apps").json["apps"]] == ["main:wsgi"]
    assert page.errors == []


def test_the_last_quarter_of_an_hour_is_drawn_and_told(site: Site) -> None:
    page = site.page
    for _ in range(20):
        version(site)
    site.folder.joinpath("main.py").write_text(app("2"))
    assert call(site.port, "POST", "/apps/main:wsgi/reload").status == 200
    eventually(lambda: len(call(site.port, "GET", "/history").json["at"]) >= 2, "two samples")
    told = call(site.port, "GET", "/history").json
    assert set(told["series"]) >= {"", "main:wsgi"}
    assert all(len(values) == len(told["at"]) for each in told["series"].values() for values in each.values())
    assert max(told["series"]["main:wsgi"]["requests_per_s"]) > 0
    assert max(told["series"][""]["memory_bytes"]) > max(told["series"]["main:wsgi"]["memory_bytes"]) > 1e6
    assert ("main:wsgi", "build") in {(each["app"], each["what"]) for each in told["marks"]}
    page.open(f"http://localhost:{site.port}/")
    page.until("document.querySelectorAll('#charts figure').length === 6")
    page.until("document.querySelector('#charts .mark.build title') !== null")
    spoken = page.evaluate("document.querySelector('#charts svg').getAttribute('aria-label')")
    assert spoken.startswith("Requests a second in the last ")
    assert "new build of main:wsgi" in spoken
    marks = "['a', 'b'].map((app) => ({ at: past.at[0], what: 'build', app, count: 1 }))"
    assert page.evaluate(f"together({marks}).map(happening).join()").startswith("new build of 2 apps ")
    page.evaluate("document.querySelectorAll('#app-rows button.name').forEach((each) => each.click())")
    page.until("document.querySelectorAll('#app-rows .charts figure').length >= 6")
    for name, width, dark in (("charts", 1280, False), ("charts-dark", 1280, True), ("charts-narrow", 390, False)):
        page.appear(width, 900, dark=dark)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        ratio, where = page.evaluate(CONTRAST)
        assert ratio >= 4.5, (name, ratio, where)
        look(site, name)
    assert page.errors == []


def test_a_profile_of_an_app_becomes_a_file(site: Site) -> None:
    page = site.page
    page.evaluate(
        "window.kept = null; window.blob = null;"
        "URL.createObjectURL = (blob) => { window.blob = blob; return 'blob:1'; };"
        "HTMLAnchorElement.prototype.click = function () { window.kept = this.download; };"
        "[...document.querySelectorAll('button')].find((e) => e.innerText.startsWith('Profile')).click()"
    )
    page.until("window.kept !== null")
    assert page.evaluate("window.kept") == "profile-main-wsgi.html"
    assert "Processor time" in page.evaluate("window.blob.text()")
    assert "is among your downloads" in page.evaluate("document.getElementById('result').innerText")
    assert page.errors == []


def test_another_sites_page_can_do_nothing(site: Site) -> None:
    """A page of another origin on the same machine: a browser lets it send, and the daemon does not listen."""
    page = site.page
    before = call(site.port, "GET", "/apps/main:wsgi").json["build"]
    page.open(f"http://127.0.0.1:{site.port}/icon.svg")  # allowed, and another origin than `localhost`
    page.open("data:text/html,<title>elsewhere</title>")
    for mode in ("cors", "no-cors"):
        outcome = page.evaluate(
            f"fetch('http://localhost:{site.port}/load', {{method: 'POST', mode: '{mode}'}})"
            ".then((r) => r.type, (e) => 'failed')"
        )
        assert outcome in ("failed", "opaque")
    assert call(site.port, "GET", "/apps/main:wsgi").json["build"] == before
    assert "reloading" not in site.process.log


BESIDE = """{
	admin localhost:PORT
}
unix/x.sock {
	python {
		module_wsgi main:wsgi
		process sleeper sh -c 'echo zzz; exec sleep 1000'
		process crasher sh -c `echo "<img src=x onerror=document.title=1>"; exit 3`
		schedule nightly "0 3 * * *" sh -c 'echo no disk; exit 4'
	}
}
"""


def test_what_runs_beside_the_workers_is_shown_and_acted_on(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(app("1"))
    port = free_port()
    with daemon(tmp_path, BESIDE.replace("PORT", str(port))) as process, browser() as page:
        page.appear(1280, 900, dark=False)
        page.open(f"http://localhost:{port}/")
        site = Site(tmp_path, process, page, port)

        def rows(of: str) -> str:
            return f"[...document.querySelectorAll('#{of} tbody > tr')]"

        def button(of: str, name: str) -> str:
            all_of_it = f"[...document.querySelectorAll('#{of} button')]"
            return f"{all_of_it}.find((b) => b.textContent === '{name} of main:wsgi')"

        page.until(f"{rows('processes')}.length === 2 && {rows('schedules')}.length === 1")
        page.until(f"{rows('processes')}[0].innerText.includes('running')")
        page.until(f"{rows('processes')}[1].innerText.includes('failed')")
        assert "exit status 3" in page.evaluate(f"{rows('processes')}[1].innerText")
        page.until("document.querySelector('#alerts').innerText.includes('process crasher ends again and again')")
        assert "0 3 * * *" in page.evaluate(f"{rows('schedules')}[0].innerText")
        page.evaluate(f"{button('schedules', 'Run now of nightly')}.click()")
        page.until(f"{rows('schedules')}[0].innerText.includes('exit status 4')")
        page.until("document.querySelector('#alerts').innerText.includes('the last run of nightly failed')")
        pid = page.evaluate(f"{rows('processes')}[0].cells[2].textContent")
        page.evaluate(f"{button('processes', 'Restart of sleeper')}.click()")
        page.until(f"!['–', '{pid}'].includes({rows('processes')}[0].cells[2].textContent)")
        for of, name in (("schedules", "nightly"), ("processes", "sleeper"), ("processes", "crasher")):
            page.evaluate(f"{button(of, f'Output of {name}')}.click()")
        page.until("document.querySelector('#schedules pre')?.innerText.includes('no disk')")
        page.until("document.querySelector('#processes pre')?.innerText.includes('zzz')")
        page.until("document.querySelectorAll('#processes pre')[1]?.innerText.includes('<img src=x')")
        assert page.evaluate("document.querySelectorAll('img').length") == 0
        for name, width, dark in (("beside-light", 1280, False), ("beside-dark", 390, True), ("beside", 390, False)):
            page.appear(width, 900, dark=dark)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
            ratio, where = page.evaluate(CONTRAST)
            assert ratio >= 4.5, (name, ratio, where)
            look(site, name)
        assert page.errors == []
