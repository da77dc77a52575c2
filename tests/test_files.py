"""files.py: atomic writes, restored files, locks, and refused paths."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from mimik import files
from mimik.config import InputError
from mimik.files import atomic_folder, atomic_write, check_file, check_folder, hold, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_write(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old" and draft.suffix == ".txt"
    assert path.read_text() == "new" and names(tmp_path) == ["a.txt"]
    with pytest.raises(RuntimeError), atomic_write(path, durable=True) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert path.read_text() == "new" and names(tmp_path) == ["a.txt"]


def test_a_new_file_is_as_readable_as_others(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"")
    with atomic_write(tmp_path / "a"):
        pass
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_no_moment_without_a_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The umask is per process: a file made by another thread meanwhile would be accessible to everybody."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask is changed"))
    write_atomically(tmp_path / "a", b"1")
    with atomic_write(tmp_path / "b") as draft:
        draft.write_bytes(b"2")


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "a", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_sync", full)
    with pytest.raises(InputError, match=r"a: no space left for its 0.0 MB; existing files are kept"):
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]
    with pytest.raises(InputError, match="cannot be written"):
        write_atomically(tmp_path / "missing" / "a", b"new")


def test_an_error_names_the_file_that_is_wanted_and_not_its_draft(tmp_path: Path) -> None:
    path = tmp_path / "a.motion"
    for named in (None, "draft"):
        with pytest.raises(OSError, match="No space") as told, atomic_write(path) as draft:
            raise OSError(errno.ENOSPC, "No space left on device", *([str(draft)] if named else []))
        assert told.value.filename == str(path) and not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="gone") as told, atomic_write(path):
        raise OSError(errno.ENOENT, "gone", "other")
    assert told.value.filename == "other"


def test_a_folder_that_cannot_be_replaced_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with atomic_folder(out) as new:
        (new / "one").write_text("1")
    with atomic_folder(out) as new:
        (new / "two").write_text("2")
    assert names(out) == ["two"] and names(tmp_path) == ["out"]
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError("made up")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="made up"), atomic_folder(out) as new:
        (new / "three").write_text("3")
    assert names(out) == ["two"] and names(tmp_path) == ["out"]


def test_errors_in_a_folder_name_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OSError, match="No space left") as caught, atomic_folder(out) as new:
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(out)
    with pytest.raises(FileNotFoundError) as missing, atomic_folder(out) as new:
        (new / "missing" / "one").write_text("1")
    assert missing.value.filename == str(out)
    with pytest.raises(FileNotFoundError) as other, atomic_folder(out):
        (tmp_path / "other").read_text()
    assert other.value.filename == str(tmp_path / "other")


def test_a_folder_with_other_files_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").touch()
    check_folder("-o", tmp_path, mark="config.json", of="shards")
    (tmp_path / "letter.txt").touch()
    with pytest.raises(InputError, match="contains other files; use a new folder, or that of shards"):
        check_folder("-o", tmp_path, mark="config.json", of="shards")
    (tmp_path / "config.json").touch()
    check_folder("-o", tmp_path, mark="config.json", of="shards")


def test_one_holds_a_file_at_a_time(tmp_path: Path) -> None:
    first = hold(tmp_path / "lock")
    assert first is not None and hold(tmp_path / "lock") is None
    first.close()
    second = hold(tmp_path / "lock", "a+")
    assert second is not None
    second.close()


def test_threads_that_write_the_same_file_leave_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    texts = [str(number) * 10_000 for number in range(8)]
    threads = [threading.Thread(target=write_atomically, args=(path, text.encode())) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts and names(tmp_path) == ["a"]


def test_what_could_not_be_written_is_refused(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("x")
    os.mkfifo(tmp_path / "pipe")
    for path, force, others, words in (
        (tmp_path / "none/a", False, [], "does not exist; create it first"),
        (tmp_path, True, [], "is a folder; use the name of a file in it"),
        (there, True, [there], "is another file of this run"),
        (there, False, [], "already exists; pass --force"),
        (Path("/dev/null"), True, [], "is not a regular file; use another name"),  # root may replace it
        (Path("/dev/stdout"), True, [], "is not a regular file"),
        (tmp_path / "pipe", True, [], "is not a regular file"),
    ):
        with pytest.raises(InputError, match=rf"--json .*{words}"):
            check_file("--json", path, force=force, others=others)
    if Path("/proc/self").exists():  # where no file can be made, although root has the access rights
        with pytest.raises(InputError, match="--json /proc/a: the folder /proc is not writable"):
            check_file("--json", Path("/proc/a"), force=False)
    check_file("--json", there, force=True, others=[tmp_path / "other"])


def test_a_folder_cannot_be_created_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for path, words in (
        ("file", "file is not a folder"),
        ("file/run", "file is not a folder"),
        ("link", "link is not"),
    ):
        with pytest.raises(InputError, match=f"-o .*: .*{words}"):
            check_folder("-o", tmp_path / path)
    check_folder("-o", tmp_path / "new" / "run")
