"""What Python writes falls on nothing that is not its own; what it is to read is read whole."""

import os
import stat
import threading
from contextlib import suppress

import pytest
from cs336lm.cli import demo
from cs336lm.cli.main import main
from cs336lm.errors import UsageError
from cs336lm.files import atomic_write
from cs336lm.text.inputs import input_files


def write(path, content=b"new"):
    with atomic_write(path) as file:
        file.write(content)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays_and_leads_to_what_was_written(tmp_path, is_there):
    far, link = tmp_path / "disk" / "far", tmp_path / "link"
    far.parent.mkdir()
    if is_there:
        far.write_bytes(b"old")
    link.symlink_to("hop")
    (tmp_path / "hop").symlink_to("disk/far")
    write(link)
    assert link.is_symlink()
    assert far.read_bytes() == b"new"
    assert not far.is_symlink()
    assert [path.name for path in far.parent.iterdir()] == ["far"]
    with suppress(RuntimeError), atomic_write(link) as file:
        file.write(b"half")
        raise RuntimeError
    assert far.read_bytes() == b"new"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_permissions_are_kept_and_never_wider_meanwhile(tmp_path, mode):
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    path.chmod(mode)
    with atomic_write(path) as file:
        file.write(b"new")
        assert stat.S_IMODE(os.stat(file.fileno()).st_mode) == mode
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_pipe_is_written_to(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert main(["stories", "--megabytes", "0.01", "--out", str(pipe)]) == 0
    reader.join()
    assert read[0].endswith(b"<|endoftext|>\n")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_is_written_to_and_named_when_it_is_full(tmp_path):
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    for device in ("/dev/null", link):
        write(device)
        assert stat.S_ISCHR(os.stat(device).st_mode)
    assert link.is_symlink()
    with pytest.raises(OSError, match="/dev/full"):
        write("/dev/full", b"x" * 100_000)


def test_a_directory_is_refused_before_any_work(tmp_path):
    with pytest.raises(IsADirectoryError), atomic_write(tmp_path):
        raise AssertionError("too late")


def test_stories_replace_stories_alone(tmp_path, capsys):
    out = tmp_path / "corpus.txt"
    for content in ("", None, "Once upon a time, my own words.\n<|endoftext|>\n", "\udcff"):
        if content is not None:
            out.write_bytes(content.encode("utf-8", "surrogateescape"))
        before = out.read_bytes()
        status = main(["stories", "--megabytes", "0.01", "--out", str(out)])
        if content:
            assert status == 2
            assert "corpus.txt exists" in capsys.readouterr().err
            assert out.read_bytes() == before
        else:
            assert status == 0


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_a_plot_replaces_a_plot_alone(tmp_path, capsys, form):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1, "seconds": 1.0, "train_loss": 2.0}\n')
    out = tmp_path / f"c.{form}"
    for _ in range(2):
        assert main(["plot", str(metrics), "--out", str(out)]) == 0
    for foreign in (metrics.read_bytes(), b"%PDF-1.4 a thesis", b"\x89PNG a photograph"):
        out.write_bytes(foreign)
        assert main(["plot", str(metrics), "--out", str(out)]) == 2
        assert "is no plot of this command's" in capsys.readouterr().err
        assert out.read_bytes() == foreign
    # A metrics file of that name is an input, and stays one.
    metrics.rename(out)
    before = out.read_bytes()
    assert main(["plot", str(out), "--out", str(out)]) == 2
    assert out.read_bytes() == before


def test_the_demo_leaves_ones_own_text(tmp_path):
    (tmp_path / "run.toml").write_text(demo._FIRST_LINE)
    (tmp_path / "train.txt").write_text("my own text")
    with pytest.raises(UsageError, match=r"train\.txt is not the demo's text"):
        demo._clear(tmp_path)
    assert (tmp_path / "train.txt").read_text() == "my own text"


@pytest.fixture
def linked(tmp_path):
    """texts/ with a folder, a link to one outside, one to a file, and two that lead back."""
    texts, outside = tmp_path / "texts", tmp_path / "outside"
    for folder in (texts / "a", outside / "deep"):
        folder.mkdir(parents=True)
    for file in (texts / "a/1.txt", outside / "2.txt", outside / "deep/3.txt"):
        file.write_text("x")
    (texts / "b").symlink_to(outside)
    (texts / "c.txt").symlink_to(outside / "2.txt")
    (texts / "back").symlink_to(texts)
    (texts / "a" / "up").symlink_to("..")
    (outside / "deep" / "round").symlink_to(outside)
    return texts


def test_linked_folders_are_read_and_loops_end(linked):
    names = ["a/1.txt", "b/2.txt", "b/deep/3.txt", "c.txt"]
    expected = [str(linked / name) for name in names]
    assert input_files(linked) == expected
    assert input_files(f"{linked}/**/*.txt") == expected
    link = linked.with_name("link")
    link.symlink_to(linked)
    assert input_files(link) == [str(link / name) for name in names]


def test_a_folder_that_cannot_be_read_is_an_error(linked, monkeypatch):
    scandir = os.scandir

    def refusing(path):
        if os.path.basename(path) == "deep":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError, match="deep"):
        input_files(linked)
