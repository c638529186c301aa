"""The Attention page in a real browser: cells, alarms, tokens and playing, light and dark."""

from __future__ import annotations

import pytest

from bottleneck_core.figures.palette import ink
from tests.browser import settled

from .test_attention_page import TEXT, T, probe

pytestmark = pytest.mark.e2e

# The chart whose title starts so, as plotly sees it.
CHART = """title => [...document.querySelectorAll(".bottleneck-chart")]
    .find(div => div._fullLayout?.title.text.startsWith(title))"""
STEP_SHOWN = f"({CHART})('Step')?._fullLayout.title.text"
# Bytes of a message after the page's first load.
MOST_BYTES = 1_000_000


def open_page(page, address: str) -> list[int]:
    """Opens the page from the menu; the sizes of the messages from the server, which grow."""
    sizes: list[int] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: sizes.append(len(frame))))
    page.goto(address)
    page.get_by_role("link", name="Attention", exact=True).click()
    page.wait_for_function(f"{STEP_SHOWN} === 'Step 300'")
    page.wait_for_url("**/attention?run=probed**")
    return sizes


def chart(page, title: str):
    """The chart whose title starts so, in view."""
    found = page.locator(".bottleneck-chart").filter(has_text=title).first
    found.scroll_into_view_if_needed()
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_cell_an_alarm_and_the_tokens_of_a_map(server, page, make_run, scheme):
    address, _ = server
    run = make_run("probed")
    run.train(5)
    probe(run, collapsed=True)
    page.emulate_media(color_scheme=scheme)
    sizes = open_page(page, address)
    page.wait_for_function(f"({CHART})('Step')._fullLayout.font.color === '{ink('text', scheme)}'")
    loaded = len(sizes)

    cells = chart(page, "Step 300").locator(".nsewdrag").first.bounding_box()
    # Four layers from the top and four heads: the third row, the second column.
    page.mouse.click(cells["x"] + 0.375 * cells["width"], cells["y"] + 0.625 * cells["height"])
    page.wait_for_url("**layer=2**")
    page.wait_for_url("**head=1**")
    page.wait_for_function(f"({CHART})('Entropy of layer 2 head 1') !== undefined")
    settled(page)
    page.get_by_role("button", name="layer 2: redundancy above 0.95 since step 300").click()
    page.wait_for_function(f"({CHART})('Head redundancy of layer 2') !== undefined")
    settled(page)
    page.get_by_role("button", name="layer 0 head 3: entropy below 0.1 nats since step 200").click()
    page.wait_for_url("**head=3**")
    title = "Attention weights of layer 0 head 3"
    page.wait_for_function(f"({CHART})('{title}') !== undefined")
    plot = chart(page, title).locator(".nsewdrag").first.bounding_box()
    # A letter looks at an angle bracket: tokens are text.
    query, key = TEXT.index(b"y"), TEXT.index(b"<")
    page.mouse.move(plot["x"] + (key + 0.5) / T * plot["width"], plot["y"] + (query + 0.5) / T * plot["height"])
    hover = page.locator(".hoverlayer").filter(has_text="→")
    hover.wait_for()
    assert hover.text_content().startswith(f"{query} y → {key} <: 0.")
    assert page.locator(".bottleneck-chart .ytick b").count() == 0

    page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
    other = ink("text", "dark" if scheme == "light" else "light")
    page.wait_for_function(f"({CHART})('{title}')._fullLayout.font.color === '{other}'")
    assert max(sizes[loaded:]) < MOST_BYTES


def test_playing_moves_the_charts_and_leaves_the_page_alone(server, page, make_run):
    address, _ = server
    run = make_run("probed")
    run.train(5)
    probe(run)
    sizes = open_page(page, address)
    page.evaluate("window.sameDocument = true")
    loaded, entries = len(sizes), page.evaluate("history.length")
    page.evaluate(
        f"""() => {{
            window.shown = [];
            window.watching = setInterval(() => {{
                const title = {STEP_SHOWN};
                if (title && window.shown.at(-1) !== title) window.shown.push(title);
            }}, 20);
        }}"""
    )
    page.get_by_role("button", name="Play", exact=True).click()
    page.get_by_role("button", name="Pause", exact=True).wait_for()
    page.get_by_role("button", name="Play", exact=True).wait_for()
    page.wait_for_function(f"{STEP_SHOWN} === 'Step 300'")
    assert page.evaluate("window.shown") == ["Step 300", "Step 0", "Step 100", "Step 200", "Step 300"]
    assert page.evaluate("window.sameDocument")
    assert page.evaluate("history.length") == entries  # no frame is a page to go back to
    assert max(sizes[loaded:]) < MOST_BYTES

    line = chart(page, "Entropy of layer 0 head 0")
    plot = line.locator(".nsewdrag").first.bounding_box()
    # A click on the second of four points goes to its step.
    points = line.locator(".points path")
    box = points.nth(1).bounding_box()
    assert plot["x"] < box["x"] < plot["x"] + plot["width"]
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url("**step=100**")
    page.wait_for_function(f"{STEP_SHOWN} === 'Step 100'")


def test_two_runs_side_by_side(server, page, make_run):
    address, _ = server
    for name in ("<b>other<b>", "probed"):
        run = make_run(name)
        run.train(5)
        probe(run)
    page.goto(address)
    page.get_by_role("link", name="Attention", exact=True).click()
    page.wait_for_function(f"{STEP_SHOWN} === 'Step 300'")
    page.get_by_role("combobox", name="Compare with").click()
    page.get_by_role("option", name="probed").click()
    page.wait_for_url("**with=probed**")
    page.wait_for_function(f"({CHART})('probed: step 300') !== undefined")
    page.get_by_text("Mean over all heads").wait_for()
    assert page.locator(".bottleneck-chart b, .stMarkdown b").count() == 0  # names are text
    range_of = "[...document.querySelectorAll('.bottleneck-chart')].map(div => div._fullData?.[0])"
    ranges = page.evaluate(f"{range_of}.filter(t => t?.type === 'heatmap').slice(0, 2).map(t => [t.zmin, t.zmax])")
    assert ranges[0] == ranges[1]
