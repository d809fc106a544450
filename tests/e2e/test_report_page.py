"""The report in a real browser: it draws, it obeys, it fits, and it asks the network for nothing."""

import base64
import io

import numpy as np
import pytest
from browser import Browser, find_browser
from judged_campaign import load_example, make_campaign, write_training_records

from hpcbackmap.evaluation.campaign import evaluate_campaign
from hpcbackmap.report.report import write_report
from hpcbackmap.runtime.mpi import LocalComm

WIDE, NARROW = (1400, 900), (390, 800)


@pytest.fixture(scope="module")
def url(tmp_path_factory, example_dir):
    folder = tmp_path_factory.mktemp("campaign")
    topology, positions = load_example(example_dir)
    noise = 0.05 * np.random.default_rng(0).normal(size=(2, 1, *positions.shape[1:]))
    errors = np.linspace(0.0, 0.2, topology.n_residues)
    campaign = make_campaign(
        folder, topology, positions, lambda truth, m: truth + noise[m], errors=errors
    )
    evaluate_campaign(campaign, LocalComm())
    write_training_records(campaign)
    return write_report(campaign, folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def opened(browser, url):
    browser.messages.clear()
    browser.requests.clear()
    browser.open(url, *WIDE)
    return browser


def canvas_pixels(browser) -> np.ndarray:
    """The 3-D view as it is, RGB."""
    from PIL import Image

    browser.settle()
    data = browser.evaluate("document.querySelector('.viewer canvas').toDataURL('image/png')")
    image = Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2])))
    return np.asarray(image.convert("RGB")).astype(int)


def drawn_share(pixels: np.ndarray) -> float:
    return float((pixels.min(-1) < 200).mean())


def toggle(browser, number: int) -> None:
    browser.evaluate(f"document.querySelectorAll('.legend input')[{number}].click()")


def test_nothing_is_reported_and_nothing_is_asked_for(opened, url):
    """Driver notes about reading pixels back are the browser's, not the page's."""
    assert opened.evaluate("document.querySelectorAll('.viewer.ready').length") == 1
    assert [text for text in opened.messages if "GL Driver Message" not in text] == []
    assert [asked for asked in opened.requests if not asked.startswith("data:image/png")] == [url]


def test_a_fault_of_the_page_would_be_noticed(opened):
    opened.evaluate("setTimeout(() => { console.error('planted'); missing(); }, 0)")
    opened.evaluate("new Promise(r => setTimeout(() => r(0), 50))")
    assert any("planted" in text for text in opened.messages)
    assert any("missing is not defined" in text for text in opened.messages)


def test_the_view_shows_what_is_switched_on(opened):
    everything = canvas_pixels(opened)
    assert 0.01 < drawn_share(everything) < 0.9
    blue = (everything[..., 2] - everything[..., 0] > 60).sum()
    assert blue > 200
    toggle(opened, 1)
    assert (canvas_pixels(opened)[..., 2] - canvas_pixels(opened)[..., 0] > 60).sum() < blue / 10
    for number in (0, 2):
        toggle(opened, number)
    assert drawn_share(canvas_pixels(opened)) == 0


def test_members_take_the_colours_of_their_expected_errors(opened):
    for number in (0, 2):
        toggle(opened, number)

    def orange() -> int:
        pixels = canvas_pixels(opened)
        return int((pixels[..., 0] - pixels[..., 2] > 60).sum())

    assert orange() == 0
    opened.evaluate(
        "(s => { s.value = 'error'; s.dispatchEvent(new Event('change')); })"
        "(document.querySelectorAll('.controls select')[1])"
    )
    assert orange() > 50
    assert (canvas_pixels(opened)[..., 2] - canvas_pixels(opened)[..., 0] > 60).sum() > 50


def test_mouse_and_keys_turn_and_zoom_and_reset_brings_back(opened):
    start = canvas_pixels(opened)
    opened.evaluate("document.querySelector('.viewer canvas').scrollIntoView({block: 'center'})")
    box = opened.evaluate(
        "(({x, y, width, height}) => [x + width / 2, y + height / 2])"
        "(document.querySelector('.viewer canvas').getBoundingClientRect())"
    )
    opened.drag(box, (box[0] + 90, box[1] + 40))
    turned = canvas_pixels(opened)
    assert (turned != start).any(-1).mean() > 0.01
    opened.evaluate("document.querySelector('.viewer canvas').focus()")
    opened.key("+")
    assert drawn_share(canvas_pixels(opened)) > 1.1 * drawn_share(turned)
    opened.key("ArrowLeft")
    opened.key("0")
    assert (canvas_pixels(opened) == start).all()


def test_the_frame_selector_changes_structures_and_says_which(opened):
    start = canvas_pixels(opened)
    before = opened.evaluate("document.querySelector('.viewer output').textContent")
    opened.evaluate(
        "(s => { s.value = s.value === '0' ? 1 : 0; s.dispatchEvent(new Event('input')); })"
        "(document.querySelector('.viewer input[type=range]'))"
    )
    assert opened.evaluate("document.querySelector('.viewer output').textContent") != before
    assert (canvas_pixels(opened) != start).any(-1).mean() > 0.005


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_the_page_fits_the_window(browser, url, size):
    browser.open(url, *size, touch=size is NARROW)
    assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert browser.evaluate("innerWidth") == size[0]
    assert drawn_share(canvas_pixels(browser)) > 0.01


def test_a_browser_without_webgl_says_so_and_shows_the_rest(browser, url):
    script = browser.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="HTMLCanvasElement.prototype.getContext = () => null",
    )
    try:
        browser.open(url, *WIDE)
        text = browser.evaluate("document.querySelector('.viewer .problem').textContent")
        assert "no WebGL 2" in text
        assert browser.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])


def test_it_prints(opened):
    pdf = opened.pdf()
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") >= 2
