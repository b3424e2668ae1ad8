"""The page at ``/`` in a browser: by keyboard, light and dark, narrow and wide, no network."""

import json
import re

import pytest
from browser import CHROMIUM, browser
from cs336lm.serving.gate import Access
from cs336lm.serving.page import page_and_policy
from served import END, Parrot, make_service, make_tokenizer, running, until

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="opened in Chromium")

FOCUS = "document.activeElement"
IDLE = "document.getElementById('halt').hidden"
TEXT = "textsOf(tokens).join('')"


def test_the_page_is_whole():
    text, policy = page_and_policy()
    assert "/*STYLE*/" not in text
    assert "/*SCRIPT*/" not in text
    addresses = re.findall(r"(?:src|href|action)=\"([^\"]*)\"", text)
    assert all(address.startswith("data:") for address in addresses)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", text)
    assert policy.count("sha256-") == 2
    for name in re.findall(r"\$\(\"([a-z_-]+)\"\)", text):
        assert f'id="{name}"' in text


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture
def page(chromium):
    chromium.complaints.clear()
    chromium.addresses.clear()
    yield chromium
    assert chromium.complaints == []


@pytest.fixture(scope="module")
def engine():
    return Parrot()


@pytest.fixture(scope="module")
def url(engine):
    with running(make_service(engine)) as url:
        yield url


def opened(page, url, **how):
    page.open(url, **how)
    page.until("document.getElementById('model').textContent.startsWith('parrot')")


def write(page, text, count=8):
    """A text by the keyboard alone, from the page's beginning."""
    page.do("document.getElementById('prompt').focus()")
    page.write(text)
    page.do(f"document.getElementById('max_tokens').value = {count}")
    page.press("Enter", ctrl=True)
    page.until(f"{IDLE} && tokens.length > 0")


@needs_chromium
def test_a_text_by_keyboard(page, url, engine):
    opened(page, url)
    write(page, "the ☃<b>", count=20)
    prompt = make_tokenizer().encode("the ☃<b>")
    assert page.do(TEXT).startswith("the ☃<b>the ☃<b>the ☃<b>")
    assert list(engine.asked[-1].prompt) == prompt
    assert engine.asked[-1].logprobs == engine.asked[-1].prompt_logprobs == 12
    shown = page.do("document.getElementById('text').innerText.replaceAll('·', '')")
    assert shown.startswith("the ☃<b>the ☃<b>")
    given = page.do("document.querySelectorAll('.given').length")
    assert given == len(prompt)
    # Along the tokens with the arrows, to the alternatives with Enter.
    page.do("document.querySelector('.token').focus()")
    for _ in range(4):
        page.press("ArrowRight")
    assert page.do(f"{FOCUS}.dataset.at") == "4"
    assert page.do("document.querySelector('[aria-pressed=true]').dataset.at") == "4"
    page.press("Enter")
    assert page.do(f"{FOCUS}.parentElement.parentElement.id") == "others"
    page.press("ArrowDown")
    before = page.do("JSON.stringify(tokens)")
    alternative = page.do("tokens[4].top[1]")
    page.press("Enter")
    page.until(f"{IDLE} && past.length === 1 && tokens.length > 20")
    assert list(engine.asked[-1].prompt) == [*prompt[:4], alternative["id"]]
    assert engine.asked[-1].prompt_logprobs is None
    ids = page.do("ids(tokens)")
    assert ids[:5] == [*prompt[:4], alternative["id"]]
    assert ids[5:] == (ids[:5] * 4)[:20]
    page.do("document.getElementById('back').click()")
    assert page.do("JSON.stringify(tokens)") == before
    page.do("document.getElementById('more').click()")
    page.until(f"{IDLE} && tokens.length === {len(prompt)} + 40")
    assert list(engine.asked[-1].prompt) == [token["id"] for token in json.loads(before)]
    # Escape leaves the alternatives, back to the token.
    page.do("document.querySelectorAll('.token')[2].click()")
    page.press("Escape")
    assert page.do("document.body.className") == ""
    assert page.do(f"{FOCUS}.dataset.at") == "2"


@needs_chromium
def test_settings_are_what_is_asked(page, url, engine):
    opened(page, url)
    values = {"temperature": "0.5", "top_p": "0.9", "top_k": "7", "seed": "11", "stop": "zz"}
    values |= {"presence_penalty": "1", "frequency_penalty": "-1", "max_tokens": "3"}
    for name, value in values.items():
        page.do(f"document.getElementById('{name}').value = '{value}'")
    page.do("document.getElementById('parse_special').checked = true")
    write(page, "a<|im_end|>", count=3)
    asked = engine.asked[-1]
    how = asked.sampling
    assert (how.temperature, how.top_p, how.top_k, how.seed) == (0.5, 0.9, 7, 11)
    assert (how.presence_penalty, how.frequency_penalty, asked.max_new_tokens) == (1, -1, 3)
    assert list(asked.prompt) == make_tokenizer().encode("a<|im_end|>")
    for name, value in (("top_p", "2"), ("temperature", "-1")):
        page.do(f"document.getElementById('{name}').value = '{value}'")
        count = len(engine.asked)
        page.do("document.getElementById('run').click()")
        assert page.do("running") is None
        assert len(engine.asked) == count


@needs_chromium
def test_text_of_a_model_is_never_markup(page):
    """A single token of this model is an image whose loading fails."""
    markup = "<img src=x onerror=alert(1)>"
    service = make_service(Parrot(), tokenizer=make_tokenizer(special=(END, markup)))
    with running(service) as url:
        opened(page, url)
        page.do("document.getElementById('parse_special').checked = true")
        write(page, f"a{markup}<script>document.title='x'</script>\n", count=50)
        page.do("document.querySelectorAll('.token')[1].click()")
        page.do("document.getElementById('tab-split').click()")
        page.do("document.getElementById('words_special').click()")
        page.until("document.querySelectorAll('.chip').length > 0")
        images = page.do("document.querySelectorAll('img').length")
        assert (images, page.do("document.querySelectorAll('script').length")) == (0, 1)
        assert page.do("document.querySelectorAll('.token')[1].textContent") == markup
        assert page.do("document.title") == "parrot · cs336lm"
        assert all(address.startswith((url, "data:")) for address in page.addresses)


@needs_chromium
def test_tokens_of_any_text(page, url):
    opened(page, url)
    page.do("document.getElementById('tab-write').focus()")
    page.press("ArrowRight")
    assert page.do(f"{FOCUS}.id") == "tab-split"
    page.do("document.getElementById('words').focus()")
    text = "the cat\n☃ <|im_end|>"
    page.write(text)
    page.until("document.querySelectorAll('.chip').length > 0")
    ids = make_tokenizer().encode_ordinary(text)
    page.until(f"document.querySelectorAll('.chip').length === {len(ids)}")
    assert (
        page.do("[...document.querySelectorAll('.chip')].map((c) => Number(c.dataset.id))") == ids
    )
    figures = page.do("document.getElementById('figures').textContent")
    assert figures.startswith(f"{len(ids)} tokens · {len(text)} characters · {len(text) + 2} bytes")
    page.do("document.getElementById('words_special').click()")
    special = make_tokenizer().encode(text)
    page.until(f"document.querySelectorAll('.chip').length === {len(special)}")


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_can_be_read(page, url, width, dark):
    """Nothing is wider than the window; text on the deepest colour has a contrast of 4.5."""
    opened(page, url, width=width, height=800, dark=dark, touch=width < 500)
    write(page, "the cat and a_word_without_end_" + "x" * 90, count=30)
    page.do("tokens[3].logprob = -99; tokens.forEach((t) => { t.given = true; }); draw(0)")
    page.do("document.querySelectorAll('.token')[3].click()")
    assert page.do("document.documentElement.scrollWidth") <= width
    assert page.do("document.querySelector('#others button').getBoundingClientRect().height") >= 32
    # The chosen token is in sight, also where the alternatives cover half of the screen.
    bottom = page.do("document.querySelectorAll('.token')[3].getBoundingClientRect().bottom")
    sheet = page.do("document.getElementById('why').getBoundingClientRect().top")
    assert bottom <= (sheet if width < 500 else 800)
    measure = """(() => {
        const canvas = document.createElement('canvas');
        const pen = canvas.getContext('2d', { willReadFrequently: true });
        const light = (layers) => {
            pen.clearRect(0, 0, 1, 1);
            for (const layer of layers) { pen.fillStyle = layer; pen.fillRect(0, 0, 1, 1); }
            const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((v) => {
                const c = v / 255;
                return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const of = (e, name) => getComputedStyle(e)[name];
        const sheet = of(document.getElementById('text'), 'backgroundColor');
        const token = document.querySelectorAll('.token')[3];
        const pairs = [
            [[of(token, 'color')], [sheet, of(token, 'backgroundColor')]],
            [[of(document.getElementById('run'), 'color')],
             [of(document.getElementById('run'), 'backgroundColor')]],
            [[of(document.getElementById('status'), 'color')],
             [of(document.body, 'backgroundColor')]],
        ];
        return pairs.map(([ink, ground]) => {
            const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05);
        });
    })()"""
    contrasts = page.do(measure)
    assert min(contrasts) >= 4.5, contrasts


@needs_chromium
def test_a_stop_frees_the_place(page):
    slow = Parrot(pause=0.02)
    with running(make_service(slow)) as url:
        opened(page, url)
        page.do("document.getElementById('prompt').focus()")
        page.write("abc")
        page.do("document.getElementById('max_tokens').value = 400")
        page.press("Enter", ctrl=True)
        page.until("tokens.length > 5")
        page.press("Escape")
        page.until(f"{IDLE}")
        until(lambda: not slow.rows)
        assert "stopped" in page.do("document.getElementById('status').textContent")


@needs_chromium
def test_a_key_and_errors_are_asked_for_and_said(chromium):
    with running(make_service(Parrot()), Access(keys=("secret",))) as url:
        chromium.open(url)
        chromium.until("!document.getElementById('door').hidden")
        chromium.do("document.getElementById('key').focus()")
        chromium.write("secret")
        chromium.press("Enter")
        chromium.until("document.getElementById('model').textContent.startsWith('parrot')")
        write(chromium, "abc")
        assert chromium.do(TEXT).startswith("abcabc")
        chromium.do("document.getElementById('max_tokens').value = 501")
        chromium.do("document.getElementById('more').click()")
        chromium.until("document.querySelector('#status.wrong')")
        said = chromium.do("document.getElementById('status').textContent")
        assert said == "max_tokens must be from 0 to 500, not 501"
    chromium.complaints.clear()  # the refusals, which the console lists
