#!/usr/bin/env python3
"""Takes the README's pictures: the quick-start in JupyterLab, killed in the middle and resumed.

They are light and wide, dark and narrow, and on paper:

    OUTLAST_BINARY=./outlast .venv/bin/python scripts/screenshots.py

Needs Chromium, what 'make setup' installs, and pdftoppm for the paper (Debian: poppler-utils). The pictures go to
docs/images.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from PIL import Image, ImageOps
from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import browser_rig  # noqa: E402  # beside the tests, not in a package
import rig  # noqa: E402
from browser_rig import Lab, Tab  # noqa: E402

IMAGES = ROOT / "docs" / "images"
COLOURS = 128  # enough for text, bars and curves


def write(name: str, png: bytes) -> None:
    """Writes a picture, small enough for a README."""
    path = IMAGES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {picture.width} x {picture.height}, {path.stat().st_size // 1024} KiB")


def cells() -> list[str]:
    """The quick-start's cells up to the training, with a slower pace: a picture needs something to see."""
    book = nbformat.read(ROOT / "notebooks" / "quickstart.ipynb", as_version=4)
    code = [c.source for c in book.cells if c.cell_type == "code"]
    wanted = [next(c for c in code if c.startswith(start)) for start in ("%%shared", "MODELS", "%%train")]
    wanted[2] = re.sub(r"job\.log\(loss=loss\)", "job.log(loss=loss); __import__('time').sleep(0.004)", wanted[2])
    return ["%gpu_config --effective-batch 64 --batch-size 64", *wanted]


def running(lab: Lab, name: str, share: float) -> dict | None:
    """The run's status once this model is so far."""
    if not (lab.data / "digits" / "state.json").exists():
        return None
    state = rig.status(lab.data, "digits")
    model = rig.model_of(state, name)
    return state if model["total_steps"] and model["step"] > share * model["total_steps"] else None


def outputs_of(tab: Tab, index: int) -> bytes:
    return tab.cell(index).locator(".jp-OutputArea").first.screenshot()


def cell_of(tab: Tab, index: int) -> bytes:
    return tab.cell(index).screenshot()


def darken(lab: Lab) -> None:
    """Gives pages that are opened from now on the dark theme."""
    themes = lab.folder.parent / "config/lab/user-settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings"
    themes.write_text(json.dumps({"theme": "JupyterLab Dark"}))


def on_paper(browser: Browser, book: Path) -> bytes | None:
    """The last two pages of the notebook's PDF, made as `jupyter nbconvert --to webpdf` does: how the run ended."""
    if shutil.which("pdftoppm") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "book.html"
        html, _ = HTMLExporter(template_name="webpdf").from_notebook_node(nbformat.read(book, as_version=4))
        page.write_text(html)
        sheet = browser.new_page()
        sheet.emulate_media(media="print")
        sheet.goto(page.as_uri())
        sheet.pdf(path=page.with_suffix(".pdf"), print_background=True)
        sheet.close()
        subprocess.run(["pdftoppm", "-r", "75", "-png", page.with_suffix(".pdf"), page.with_suffix("")], check=True)
        return beside(*(p.read_bytes() for p in sorted(Path(folder).glob("book-*.png"))[-2:]))


def take(lab: Lab, tab: Tab, book: Path) -> None:
    for index in range(4):
        tab.run(index)
    rig.wait_for("a run in the middle", lambda: running(lab, "cnn-small", 0.5), 300)
    time.sleep(1)  # the table follows the state
    write("live.png", outputs_of(tab, 3))

    state = rig.wait_for("the gru", lambda: running(lab, "gru", 0.45), 300)
    for pid in (state["supervisor_pid"], rig.model_of(state, "gru")["worker_pid"]):
        os.kill(pid, signal.SIGKILL)
    tab.shows(3, "digits: paused")
    lost = outputs_of(tab, 3)
    resume = tab.add("%resume digits")
    tab.shows(resume, "8 of 8 models done", seconds=300)
    rig.wait_for("the end of the cell", lambda: "[*]" not in tab.cell(resume).inner_text())
    results = tab.add("%results digits")
    tab.shows(results, "best")
    tab.cell(results).locator("img").wait_for()
    tab.cell(0).locator(".cm-content").click()  # away from what is shown
    write("results.png", cell_of(tab, results))
    write("resume.png", stacked(lost, cell_of(tab, resume)))
    tab.save(book)

    browser = tab.page.context.browser
    darken(lab)
    narrow = Tab(browser.new_page(viewport={"width": 700, "height": 1600}), lab, book)
    narrow.page.locator(".jp-SideBar .lm-TabBar-tab").first.click()
    narrow.cell(0).locator(".cm-content").click()
    narrow.cell(results).locator("img").wait_for()
    write("dark.png", cell_of(narrow, results))
    if paper := on_paper(browser, book):
        write("paper.png", paper)


def beside(*pngs: bytes) -> bytes:
    """Pages beside each other, without the empty end that they share."""
    pages = [Image.open(io.BytesIO(p)).convert("L") for p in pngs]
    height = max(ImageOps.invert(p).getbbox()[3] for p in pages) + 20
    sheet = Image.new("RGB", (sum(p.width for p in pages), height), "white")
    left = 0
    for p in pngs:
        page = Image.open(io.BytesIO(p)).convert("RGB")
        sheet.paste(page, (left, 0))
        left += page.width
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def stacked(*pngs: bytes) -> bytes:
    """Pictures below each other, on white."""
    pictures = [Image.open(io.BytesIO(p)).convert("RGB") for p in pngs]
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for p in pictures:  # a cell ends a little to the right of its output
        sheet.paste(p, (sheet.width - p.width - (0 if p.width == sheet.width else 5), top))
        top += p.height
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def main() -> None:
    path = browser_rig.find_browser()
    if path is None:
        sys.exit("screenshots: there is no Chromium here; on Debian: apt-get install chromium")
    folder = Path(tempfile.gettempdir()) / "demo"  # it can be read in the pictures
    folder.mkdir()
    try:
        with browser_rig.chromium(path) as browser:
            prefix = folder / "prefix"
            rig.outlast("install", "--prefix", prefix)
            lab = Lab(folder, prefix / "share" / "jupyter" / "kernels")
            try:
                book = lab.notebook("digits", *cells())
                tab = Tab(browser.new_page(viewport={"width": 1180, "height": 2200}), lab, book)
                tab.page.locator(".jp-SideBar .lm-TabBar-tab").first.click()  # closes the list of files
                take(lab, tab, book)
            finally:
                lab.close()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
