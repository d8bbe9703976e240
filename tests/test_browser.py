"""JupyterLab in a browser while a run trains: the network goes, the page is reloaded, the tab is closed.

OUTLAST_SLOW_TESTS=1 stays away for as long as people do.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import browser_rig
import nbformat
import pytest
import rig
from browser_rig import Lab, Tab
from nbconvert import HTMLExporter
from playwright.sync_api import Browser

SLOW = os.environ.get("OUTLAST_SLOW_TESTS") == "1"
DARK = 60 if SLOW else 8  # seconds without network
CLOSED = 120 if SLOW else 8  # seconds without a tab

Open = Callable[[Path], Tab]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = browser_rig.find_browser()
    if path is None:
        pytest.skip("there is no Chromium here; 'make setup' installs it on Debian as root")
    with browser_rig.chromium(path) as b:
        yield b


@pytest.fixture(scope="module")
def lab(browser: Browser, kernel_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    server = Lab(tmp_path_factory.mktemp("lab"), kernel_spec)
    yield server
    server.close()


@pytest.fixture
def open_tab(browser: Browser, lab: Lab) -> Iterator[Open]:
    """Opens a notebook in a tab of its own."""
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    yield lambda path: Tab(context.new_page(), lab, path)
    context.close()
    for kernel in lab.kernels():
        lab.ask(f"api/kernels/{kernel}", method="DELETE")


def texts(output: dict) -> str:
    """The plain text of one output in a notebook's file."""
    text = output.get("text", output.get("data", {}).get("text/plain", ""))
    return "".join(text)


def outputs(book: dict, index: int) -> list[str]:
    return [texts(o) for o in book["cells"][index]["outputs"]]


def assert_whole(book: dict, run: str) -> None:
    """The cell of %train, the second, has one table, with each model once and done."""
    (table,) = outputs(book, 1)
    assert f"{run}: done, 2 of 2 models done" in table
    assert table.count("first ") == table.count("second ") == 1, table


def test_the_network_goes_and_comes_back(lab: Lab, open_tab: Open) -> None:
    path = lab.notebook("network", "%keepalive --every 2s", lab.train("network"), "print('after the run')")
    tab = open_tab(path)
    for cell in range(3):
        tab.run(cell)
    tab.reaches(1, 10)
    tab.shows(0, "busy as long as this works: network")

    lab.wire.cut()
    tab.shows(0, "⚠ Connection lost at", "Training goes on without this page")
    shown = tab.step(1)
    step = browser_rig.stay_away(DARK, lab, "network")
    assert step > shown, "the run must not wait for the page"
    lab.wire.restore()

    tab.shows(0, "✓ Connected again at", "%attach")
    tab.reaches(1, step, seconds=120)
    lab.release("network")
    tab.shows(1, "network: done, 2 of 2 models done")
    tab.shows(2, "after the run")
    tab.shows(0, "nothing works now")
    book = tab.save(path)
    assert_whole(book, "network")
    assert outputs(book, 2) == ["after the run\n"]
    assert len(outputs(book, 0)) == 1, "one card"
    assert tab.errors == []


def reload(tab: Tab, lab: Lab, reopen: Callable[[], Tab]) -> Tab:
    tab.reload()
    return tab


def close_and_open(tab: Tab, lab: Lab, reopen: Callable[[], Tab]) -> Tab:
    tab.page.close()
    browser_rig.stay_away(CLOSED, lab, "close_and_open")
    return reopen()


@pytest.mark.parametrize("leave", [reload, close_and_open])
def test_the_page_goes_and_everything_can_be_seen_again(leave: Callable, lab: Lab, open_tab: Open) -> None:
    run = leave.__name__
    path = lab.notebook(run, "%keepalive", lab.train(run))
    tab = open_tab(path)
    tab.run(0)
    tab.run(1)
    tab.reaches(1, 10)
    tab.shows(0, "busy as long as this works")
    tab.save(path)
    supervisor = rig.status(lab.data, run)["supervisor_pid"]

    tab = leave(tab, lab, lambda: open_tab(path))
    tab.shows(0, "busy as long as this works")
    if leave is close_and_open:
        tab.shows(0, "This card is as it was at", "%keepalive status")
    step = lab.step(run)
    attach = tab.add(f"%attach {run}")
    tab.reaches(attach, step)
    tab.reaches(attach, tab.step(attach) + 10)
    replay = tab.add("%replay 2")
    tab.shows(replay, f"{run}: running", "first", "second")
    status = tab.add(f"%status {run}")
    tab.shows(status, f"{run}: running")
    assert rig.status(lab.data, run)["supervisor_pid"] == supervisor

    lab.release(run)
    tab.shows(attach, f"{run}: done, 2 of 2 models done")
    again = tab.add("%replay 2")
    tab.shows(again, f"{run}: done, 2 of 2 models done")
    book = tab.save(path)
    for index in (attach, again):
        assert len(outputs(book, index)) == 1, outputs(book, index)
        assert outputs(book, index)[0].count("first ") == 1
    assert tab.errors == []


def test_two_tabs_see_the_same_run(lab: Lab, open_tab: Open) -> None:
    path = lab.notebook("twice", "%keepalive --every 2s", lab.train("twice"))
    one = open_tab(path)
    one.run(0)
    one.run(1)
    one.reaches(1, 10)
    one.save(path)
    two = open_tab(path)
    attach = two.add("%attach twice")
    two.reaches(attach, lab.step("twice"))
    one.reaches(1, two.step(attach))
    one.shows(0, "busy as long as this works: twice")
    assert len(lab.kernels()) == 1
    lab.release("twice")
    one.shows(1, "twice: done, 2 of 2 models done")
    two.shows(attach, "twice: done, 2 of 2 models done")
    assert one.errors == two.errors == []


def test_a_restarted_kernel_is_busy_again_and_the_old_card_does_not_pretend(lab: Lab, open_tab: Open) -> None:
    tab = open_tab(lab.notebook("restarted", "%keepalive --every 2s", lab.train("restarted", "--detach")))
    tab.run(0)
    tab.run(1)
    tab.shows(0, "busy as long as this works: restarted")
    (kernel,) = lab.kernels()

    def state() -> str:
        return lab.kernels()[kernel]["execution_state"]

    lab.ask(f"api/kernels/{kernel}/restart", {})
    step = lab.step("restarted")
    status = tab.add("%keepalive status")
    tab.shows(status, "on again since this kernel was restarted at", "busy as long as this works: restarted")
    tab.shows(status, "%keepalive shows a new one")
    rig.wait_for("the busy of the run", lambda: state() == "busy")
    rig.wait_for("the run to go on", lambda: lab.step("restarted") > step)
    assert state() == "busy"
    assert "The kernel is idle" not in tab.output(0)

    lab.release("restarted")
    rig.wait_for("an idle kernel", lambda: state() == "idle")
    tab.shows(0, "⚠ The kernel is idle, although this card says that a run works")
    again = tab.add("%keepalive")
    tab.shows(again, "Keep-alive: on; nothing works now")
    assert tab.errors == []


def test_a_restarted_kernel_leaves_off_what_was_switched_off(lab: Lab, open_tab: Open) -> None:
    tab = open_tab(lab.notebook("off", "%keepalive --every 2s", lab.train("off", "--detach"), "%keepalive off"))
    tab.run(0)
    tab.run(1)
    tab.shows(0, "busy as long as this works: off")
    tab.run(2)
    tab.shows(0, "Keep-alive: off since")
    (kernel,) = lab.kernels()
    lab.ask(f"api/kernels/{kernel}/restart", {})
    status = tab.add("%keepalive status")
    tab.shows(status, "Keep-alive: off; %keepalive switches it on")
    rig.wait_for("an idle kernel", lambda: lab.kernels()[kernel]["execution_state"] == "idle")
    lab.release("off")


@pytest.mark.parametrize("width", [1300, 520])
def test_plots_fit_the_page_and_results_can_be_downloaded(width: int, browser: Browser, lab: Lab) -> None:
    run = f"plots-{width}"
    path = lab.notebook(run, lab.train(run), f"%results {run}", f"%results {run} --zip {run}.zip")
    lab.release(run)
    context = browser.new_context(viewport={"width": width, "height": 900})
    try:
        tab = Tab(context.new_page(), lab, path)
        tab.page.locator(".jp-SideBar .lm-TabBar-tab").first.click()  # closes the list of files
        for cell in range(3):
            tab.run(cell)
        tab.shows(1, f"{run}: results of 2 models")
        picture = tab.cell(1).locator(".jp-OutputArea-output img")
        picture.wait_for()
        page, drawn = tab.cell(1).locator(".jp-OutputArea").first.bounding_box(), picture.bounding_box()
        assert drawn["x"] + drawn["width"] <= page["x"] + page["width"], "nothing is cut off"
        natural = picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")
        assert drawn["height"] / drawn["width"] == pytest.approx(natural[1] / natural[0], abs=0.02)
        assert width < 1000 or drawn["width"] == natural[0] / 2, "sharp, and no larger than it is"

        tab.shows(2, f"Results written to {run}.zip (of 2 models, ")
        assert "★ best" not in tab.output(2), "the table is not shown again"
        with tab.page.expect_download() as download:
            tab.cell(2).locator("a").click()
        assert zipfile.is_zipfile(download.value.path())
        assert download.value.suggested_filename == f"{run}.zip"
        assert tab.errors == []
    finally:
        context.close()
        for kernel in lab.kernels():
            lab.ask(f"api/kernels/{kernel}", method="DELETE")


def test_the_stop_button_pauses_the_run_and_says_how_to_go_on(lab: Lab, open_tab: Open) -> None:
    path = lab.notebook("paused", lab.train("paused"))
    tab = open_tab(path)
    tab.run(0)
    tab.reaches(0, 10)
    tab.page.locator('.jp-NotebookPanel-toolbar [data-jp-item-name="interrupt"]').click()
    shown = tab.shows(0, "paused: paused, 0 of 2 models done", "%resume paused continues it", "To do: ")
    assert "Traceback" not in shown
    state = rig.status(lab.data, "paused")
    assert state["state"] == "paused"
    first = rig.model_of(state, "first")
    assert first["checkpoint"]["step"] >= first["step"], "it saves before it ends"

    resume = tab.add("%resume paused")
    tab.reaches(resume, first["checkpoint"]["step"] + 1)
    lab.release("paused")
    tab.shows(resume, "paused: done, 2 of 2 models done")


def test_a_page_without_scripts_shows_the_same(lab: Lab, open_tab: Open) -> None:
    path = lab.notebook("plain", "%keepalive", lab.train("plain"), "%results plain")
    tab = open_tab(path)
    tab.run(0)
    lab.release("plain")
    tab.run(1)
    tab.shows(1, "plain: done, 2 of 2 models done")
    tab.shows(0, "nothing works now")
    tab.run(2)
    tab.cell(2).locator(".jp-OutputArea-output img").wait_for()
    assert tab.page.evaluate("Object.keys(window.outlastKeepalive.kernels)") == list(lab.kernels())
    tab.save(path)
    book = nbformat.read(path, as_version=4)
    (text,) = outputs(book, 0)
    picture = next(o for o in book["cells"][2]["outputs"] if "image/png" in o["data"])
    assert picture["metadata"]["image/png"]["alt"] == "Plots: loss of 2 models over the steps of training"
    assert picture["metadata"]["image/png"]["alt"] in texts(picture), "and as text, where nothing is drawn"
    assert [line.split(":")[0] for line in text.splitlines()] == ["Keep-alive", "Host", "Protects", "Cannot be helped"]

    # Of somebody else, so not trusted: scripts are taken out.
    other = lab.folder / "untrusted.ipynb"
    for cell in book["cells"]:
        cell["metadata"].pop("trusted", None)
    book["cells"][0]["source"] = "%keepalive  # changed since it was signed"
    nbformat.write(book, other)
    untrusted = open_tab(other)
    untrusted.shows(0, "Keep-alive: on; nothing works now", "Protects: ", "Cannot be helped: ")
    untrusted.shows(1, "plain: done, 2 of 2 models done")
    untrusted.shows(2, "★ best")
    untrusted.cell(2).locator(".jp-OutputArea-output img").wait_for()
    assert untrusted.page.evaluate("typeof window.outlastKeepalive") == "undefined"

    page, _ = HTMLExporter().from_notebook_node(book)
    exported = lab.folder / "plain.html"
    exported.write_text(page)
    context = tab.page.context.browser.new_context(java_script_enabled=False)
    sheet = context.new_page()
    sheet.goto(exported.as_uri())
    shown = sheet.locator("body").inner_text()
    context.close()
    assert "Keep-alive: on; nothing works now" in shown
    assert "plain: done, 2 of 2 models done" in shown
    assert "function (config)" not in shown
