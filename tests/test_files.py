"""What is written is on the disk before it has its name, and a lock has one owner."""

import errno
import multiprocessing
import os
import sys
import time

import cs336lm.files
import pytest
from cs336lm.errors import UsageError
from cs336lm.files import (
    append_line,
    atomic_write,
    exclusive_lock,
    new_directory,
    refuse_if_locked,
    remove_directory,
    remove_unfinished,
)


@pytest.fixture
def journal(monkeypatch):
    """The calls that decide what survives a power cut, in order, and what they were made on."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle):
        size = os.fstat(handle).st_size
        calls.append(("fsync", os.readlink(f"/proc/self/fd/{handle}"), size))
        fsync(handle)

    def noted_replace(source, target, **options):
        calls.append(("replace", str(source), str(target)))
        replace(source, target, **options)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    return calls


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="names of open files are not told")
def test_a_file_and_then_its_folder_are_synced(tmp_path, journal):
    with atomic_write(tmp_path / "a.bin") as file:
        file.write(b"x" * 10_000)
        beside = os.readlink(f"/proc/self/fd/{file.fileno()}")
    assert os.path.dirname(beside) == str(tmp_path)
    (first, renamed, last) = journal
    assert first == ("fsync", beside, 10_000)  # all of it, buffers included
    assert renamed == ("replace", beside, str(tmp_path / "a.bin"))
    assert last[:2] == ("fsync", str(tmp_path))


def hold(path, ready):
    with exclusive_lock(path, "the pot"):
        ready.set()
        time.sleep(600)


def test_a_lock_names_its_owner_and_dies_with_it(tmp_path):
    path = tmp_path / ".lock"
    refuse_if_locked(path, "the pot")
    assert not path.exists()  # looking makes nothing
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    owner = fork.Process(target=hold, args=(path, ready))
    owner.start()
    assert ready.wait(60)
    for attempt in (
        exclusive_lock(path, "the pot").__enter__,
        lambda: refuse_if_locked(path, "the pot"),
    ):
        with pytest.raises(UsageError, match=f"^the pot is in use by process {owner.pid} on "):
            attempt()
    owner.kill()
    owner.join()
    refuse_if_locked(path, "the pot")
    with exclusive_lock(path, "the pot"):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    with exclusive_lock(path, "the pot"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked there")
def test_a_disk_without_locks_is_a_warning(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    told = pytest.warns(UserWarning, match="this file system has no locks")
    with told, exclusive_lock(tmp_path / ".lock", "the pot"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked there")
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    left = [tmp_path / ".a.bin.999999.partial", tmp_path / ".b.bin.999999.partial"]
    for path in left:
        path.write_text("half")
    (tmp_path / ".new.999999.partial").mkdir()
    (tmp_path / ".new.999999.partial" / "a").touch()
    fork = multiprocessing.get_context("fork")
    writing, done = fork.Event(), fork.Event()

    def write():
        with atomic_write(tmp_path / "a.bin") as file:
            file.write(b"theirs")
            writing.set()
            done.wait(60)

    other = fork.Process(target=write)
    other.start()
    assert writing.wait(60)
    with atomic_write(tmp_path / "a.bin") as file:
        file.write(b"ours")
    done.set()
    other.join()
    assert other.exitcode == 0
    assert (tmp_path / "a.bin").read_bytes() == b"theirs"
    with new_directory(tmp_path / "new") as folder:
        (folder / "b").touch()
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert found == {"a.bin", left[1].name, "new", "new/b"}


def test_a_line_is_added_whole_after_what_a_kill_left(tmp_path):
    path = tmp_path / "lines"
    for content, kept in ((b"", b""), (b"one\ntw", b"one\n"), (b"x" * 200_000, b"")):
        path.write_bytes(content)
        append_line(path, b"new")
        assert path.read_bytes() == kept + b"new\n"
    append_line(tmp_path / "other", b"first")
    assert (tmp_path / "other").read_bytes() == b"first\n"


def test_a_line_that_does_not_fit_is_taken_back(tmp_path, monkeypatch):
    from cs336lm import files

    def full(file, content):
        file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "lines"
    path.write_bytes(b"one\n")
    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(OSError, match="No space left") as raised:
        append_line(path, b"a line of some length")
    assert raised.value.filename == str(path)
    assert path.read_bytes() == b"one\n"


def test_of_two_that_make_a_folder_the_second_hears_of_the_first(tmp_path):
    place = tmp_path / "made"

    def make_both():
        with new_directory(place) as second:
            (second / "file").write_text("second")
            with new_directory(tmp_path / "other") as first:
                (first / "file").write_text("first")
            (tmp_path / "other").rename(place)

    with pytest.raises(UsageError, match="made is there already"):
        make_both()
    assert (place / "file").read_text() == "first"
    assert os.listdir(tmp_path) == ["made"]


def test_a_folder_goes_at_once(tmp_path, monkeypatch):
    """What is half removed has another name, under which the next removes what a kill left."""
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "part").write_text("1")
    seen = []

    def killed(doomed):
        seen.append((os.path.exists(folder), sorted(os.listdir(doomed))))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_directory(folder)
    assert seen == [(False, ["part"])]
    assert [name.startswith(".parts.") for name in os.listdir(tmp_path)] == [True]
    remove_unfinished(folder)
    assert os.listdir(tmp_path) == []


def test_a_lock_whose_folder_was_removed_is_none(tmp_path, monkeypatch):
    folder = tmp_path / "parts"
    folder.mkdir()
    lock = cs336lm.files._flock

    def late(handle, *, exclusive):
        if folder.exists():
            folder.rename(tmp_path / "gone")
            folder.mkdir()
            (folder / ".lock").touch()
            monkeypatch.setattr("cs336lm.files._flock", lock)
        return lock(handle, exclusive=exclusive)

    monkeypatch.setattr("cs336lm.files._flock", late)
    with (
        pytest.raises(FileNotFoundError, match=r"parts/\.lock"),
        exclusive_lock(folder / ".lock", "it"),
    ):
        raise AssertionError("it is not locked")
