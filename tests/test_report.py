"""The report: what it says of runs and sweeps, and that a browser shows it, light, dark, narrow."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cs336lm.cli.main import main
from cs336lm.experiments.monitor_plot import BY_LAYER
from cs336lm.generation.samples import Samples
from cs336lm.text.tokenizer import Tokenizer
from cs336lm.training.config import save_config
from cs336lm.training.trackers.jsonl import read_records
from cs336lm.training.trainer import Trainer
from test_training_samples import spoken
from tiny_run import make_config

VOID = {"meta", "br", "path", "use", "rect", "link"}


class Page(HTMLParser):
    """The page's text, its addresses, and whether its tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.addresses = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Two seeds and a sweep, of which one trial diverged, in one report."""
    folder = tmp_path_factory.mktemp("reported")
    vocab = {i: bytes([i]) for i in range(256)}
    Tokenizer(vocab, [], ["<|endoftext|>"]).save(folder / "tokenizer")
    config = make_config(folder)
    for seed in (0, 1):
        Trainer(make_config(folder, seed=seed), folder / f"seed-{seed}").train()
    sweep = folder / "rates"
    records = []
    for rate, loss in ((0.1, 2.5), (1.0, None)):
        name = f"rate-{rate}" + ",train.max_tokens=None" * 8  # trials of many values have long ones
        run = sweep / "runs" / name
        (run / "checkpoints").mkdir(parents=True)
        save_config(config.resolved(40), run / "config.toml")
        lines = [{"step": s, "tokens": 64 * s, "seconds": s, "val_loss": loss} for s in (0, 12)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        records.append(
            {
                "trial": name,
                "overrides": {"optim.lr": rate},
                "seed": 0,
                "end": "done" if loss else "diverged",
                "diverged": loss is None,
                "val_loss": loss,
                "steps": 12,
                "tokens": 768,
                "seconds": 12.0,
                "parameters": 1234,
                "run": f"/gone/{rate}",
            }
        )
    (sweep / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (sweep / "notes.md").write_text("Rates <from> low to high.")
    runs = [str(folder / name) for name in ("seed-0", "seed-1", "rates")]
    assert main(["report", *runs, "--title", "A <title>", "--out", str(folder / "report")]) == 0
    return folder


def test_the_page_is_whole_and_needs_nothing_else(reported):
    text = (reported / "report" / "index.html").read_text()
    page = Page(text)
    assert all(address.startswith("#") for address in page.addresses)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "<title>A &lt;title&gt;</title>" in text
    assert "Rates &lt;from&gt; low to high." in text


def test_page_and_markdown_say_what_the_runs_say(reported):
    page = " ".join(Page((reported / "report" / "index.html").read_text()).words)
    markdown = (reported / "report" / "report.md").read_text()
    losses = []
    for seed in (0, 1):
        lines = (reported / f"seed-{seed}" / "metrics.jsonl").read_text().splitlines()
        losses.append(json.loads(lines[-1])["val_loss"])
    mean = sum(losses) / 2
    spread = abs(losses[0] - losses[1]) / 2**0.5
    for figure in (*losses, mean, spread):
        assert f"{figure:.4f}" in page
        assert f" {figure:.4f} |" in markdown
    for text in (page, markdown):
        assert "diverged" in text
        assert "1,234" in text
        assert "torch" in text or text is markdown
        assert "[model]" in text
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", markdown)
    assert len(pictures) == 3 + 4  # by step, tokens, time; of the sweep the final losses too
    for picture in pictures:
        assert (reported / "report" / picture).read_text().startswith("<?xml")


def test_samples_are_the_same_prompts_with_the_same_seed(reported, tmp_path, capsys):
    """The tiny runs have no tokenizer: that is said, and the report is made all the same."""
    argv = ["report", str(reported / "seed-0"), "--prompt", "Once", "--out", str(tmp_path / "r")]
    assert main(argv) == 0
    assert "no sample of seed-0 has no tokenizer" in capsys.readouterr().err
    vocab = {i: bytes([i]) for i in range(256)}
    run = tmp_path / "run"
    shutil.copytree(reported / "seed-0", run)
    config = make_config(reported)
    from dataclasses import replace

    model = replace(config.model, vocab_size=257)
    Tokenizer(vocab, [], ["<|endoftext|>"]).save(tmp_path / "tok")
    data = replace(config.data, tokenizer=tmp_path / "tok")
    Trainer(replace(config, model=model, data=data), tmp_path / "spoken").train()
    argv = ["report", str(tmp_path / "spoken"), "--prompt", "Once <", "--tokens", "5"]
    assert main([*argv, "--out", str(tmp_path / "s")]) == 0
    first = (tmp_path / "s" / "index.html").read_text()
    assert '<span class="prompt">Once &lt;</span>' in first
    assert main([*argv, "--out", str(tmp_path / "s")]) == 0  # our own is replaced
    sample = r'<pre class="sample">.*?</pre>'
    again = (tmp_path / "s" / "index.html").read_text()
    assert re.findall(sample, first, re.S) == re.findall(sample, again, re.S)


def test_what_is_not_ours_stays(reported, tmp_path, capsys):
    (tmp_path / "index.html").write_text("my home page")
    argv = ["report", str(reported / "seed-0"), "--out", str(tmp_path)]
    assert main(argv) == 2
    assert "no report of this command's" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "r")]) == 2
    assert "neither a run directory" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


PROBE = """<script>
addEventListener("load", () => {
  const ink = getComputedStyle(document.body).color;
  const text = getComputedStyle(document.querySelector("svg text")).fill;
  document.title = [document.documentElement.scrollWidth <= innerWidth, ink, text].join(";");
});
</script></body>"""


def test_monitored_figures_and_samples_on_the_way_are_shown(tmp_path):
    config = spoken(tmp_path, steps=12, monitor_every=4, sample_every=1)
    Trainer(config, tmp_path / "run", callbacks=[Samples]).train()
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "r")]) == 0
    page = Page((tmp_path / "r" / "index.html").read_text())
    markdown = (tmp_path / "r" / "report.md").read_text()
    assert "![Inside run: a line a layer](1-inside-1.svg)" in markdown
    picture = (tmp_path / "r" / "1-inside-1.svg").read_text()
    assert "<svg" in picture
    words = " ".join(page.words)
    for label in (*BY_LAYER.values(), "Inside run: a line a layer", "Samples during training"):
        assert label in words
    samples = read_records(tmp_path / "run" / "samples.jsonl")
    shown = [1, 4, 7, 9, 12]  # the first, the last, and some between
    steps = [int(word.removeprefix("step ")) for word in page.words if word.startswith("step ")]
    assert [step for step in steps if step in shown] == 2 * shown  # of two prompts
    for sample in samples:
        assert (f"run, step {sample['step']}, after" in markdown) == (sample["step"] in shown)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="opened in Debian's Chromium")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_browser_shows_it(reported, tmp_path, width, scheme):
    """Nothing is wider than the window; lettering in pictures has the page's own colour."""
    page = (reported / "report" / "index.html").read_text().replace("</body>", PROBE)
    (tmp_path / "page.html").write_text(page)
    said = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
            f"--window-size={max(width, 500)},900",
            "--dump-dom",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    fits, ink, text = re.search(r"<title>(.*?)</title>", said)[1].split(";")
    assert fits == "true"
    light = {"dark": "rgb(230, 237, 243)", "light": "rgb(27, 31, 36)"}
    assert ink == text == light[scheme]
    assert Path(tmp_path / "page.html").exists()
