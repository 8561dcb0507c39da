"""Bad folders of pictures: what cannot be read is passed over once, with its code; nothing blocks, nothing leads astray."""

import os
import socket

import numpy as np
import pytest
from PIL import Image

from verossim.data import open_source
from verossim.errors import VerossimError


def draw(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 4), np.uint8)).save(path, "PNG")
    return path


def names_of(source):
    return [name for block in source.blocks() for name in block.names]


def codes(source):
    return [(problem.code, problem.where) for problem in source.problems]


def test_links_that_lead_out_or_round(tmp_path):
    folder = tmp_path / "in"
    draw(folder / "cat" / "a.png")
    secret = draw(tmp_path / "out" / "secret.png", 1)
    (folder / "cat" / "b.png").symlink_to(secret)
    (folder / "cat" / "c.png").symlink_to("c.png")
    (folder / "cat" / "d.png").symlink_to("nothing.png")
    (folder / "cat" / "round").symlink_to("..")
    (folder / "away").symlink_to(tmp_path / "out")
    source = open_source(folder)
    assert names_of(source) == ["cat/a.png"] == names_of(source)
    assert codes(source) == [("PATH_ESCAPE", "away"), ("PATH_ESCAPE", "cat/b.png"), ("PATH_LOOP", "cat/c.png"),
                             ("IO_GONE", "cat/d.png"), ("PATH_LOOP", "cat/round")]
    assert all(problem.hint and problem.where in problem.message for problem in source.problems)
    with pytest.raises(VerossimError) as error:
        open_source(folder, strict=True)
    assert error.value.code == "PATH_ESCAPE"


@pytest.mark.timeout(10)
def test_pipes_sockets_and_devices_are_not_opened(tmp_path):
    draw(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "c.png"))
    (tmp_path / "d.png").symlink_to("/dev/zero")
    source = open_source(tmp_path)
    assert names_of(source) == ["a.png"]
    assert codes(source) == [("PATH_NOT_FILE", "b.png"), ("PATH_NOT_FILE", "c.png"), ("PATH_ESCAPE", "d.png")]
    with pytest.raises(VerossimError) as error:
        open_source(tmp_path / "b.png")
    assert error.value.code == "PATH_NOT_FILE"


@pytest.mark.timeout(10)
def test_a_file_that_becomes_a_pipe_or_vanishes_while_it_is_read(tmp_path):
    for number in range(4):
        draw(tmp_path / f"{number}.png", number)
    source = open_source(tmp_path)
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").unlink()
    os.mkfifo(tmp_path / "2.png")
    assert names_of(source) == ["0.png", "3.png"] == names_of(source)
    assert codes(source) == [("IO_GONE", "1.png"), ("PATH_NOT_FILE", "2.png")]


def test_many_vanishing_files_stop_the_reading(tmp_path):
    for number in range(30):
        draw(tmp_path / f"{number:02}.png")
    source = open_source(tmp_path)
    for number in range(20):
        (tmp_path / f"{number:02}.png").unlink()
    with pytest.raises(VerossimError) as error:
        names_of(source)
    assert (error.value.code, error.value.status) == ("IO_GONE", 74)


def without_privilege(job):
    """What `job` returns in a child that is nobody: root may read everything."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setuid(65534)
            os.write(write, repr(job()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        answer = file.read().decode()
    os.waitpid(child, 0)
    return answer


def test_files_and_folders_without_permission(tmp_path):
    for parent in [tmp_path, *tmp_path.parents][:4]:
        parent.chmod(0o755)
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png").chmod(0)
    draw(tmp_path / "closed" / "c.png").parent.chmod(0)
    (tmp_path / "sealed").mkdir(0)

    def job():
        source = open_source(tmp_path)
        found = names_of(source), codes(source)
        try:
            open_source(tmp_path / "sealed")
        except VerossimError as error:
            return found, (error.code, error.status)
    denied = [("IO_DENIED", name) for name in ("closed", "sealed", "b.png")]
    assert without_privilege(job) == repr(((["a.png"], denied), ("IO_DENIED", 74)))
    for name in ("closed", "sealed"):
        (tmp_path / name).chmod(0o755)


def test_a_list_that_does_not_match(tmp_path):
    for number in range(8):
        draw(tmp_path / f"{number}.png")
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{n}.png,cat\n" for n in (0, 11, 12)))
    with pytest.raises(VerossimError) as error:
        open_source(tmp_path)
    assert (error.value.code, error.value.status) == ("LABEL_MISMATCH", 65)
    assert "7 picture(s)" in error.value.message and "2 row(s)" in error.value.message
    assert "1.png, 2.png, 3.png, 4.png, 5.png, ..." in error.value.message and "11.png, 12.png)" in error.value.message
    (tmp_path / "labels.csv").write_text("name,class\n0.png,cat\n")
    with pytest.raises(VerossimError) as error:
        open_source(tmp_path)
    assert error.value.code == "LABEL_MISMATCH" and "'file'" in error.value.hint


def test_a_file_too_long_for_any_picture_is_not_read(tmp_path):
    draw(tmp_path / "a.png")
    with (tmp_path / "b.png").open("wb") as file:
        file.truncate(10**12)  # a hole: reading it would take all memory
    source = open_source(tmp_path, image_pixels=10_000)
    assert names_of(source) == ["a.png"] and codes(source) == [("IMG_TOO_LARGE", "b.png")]


def test_a_folder_of_other_things(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(VerossimError) as error:
        open_source(tmp_path)
    assert (error.value.code, error.value.status) == ("DATA_EMPTY", 66) and ".jpeg" in error.value.hint


def test_names_are_shown_escaped(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "bad\n\x1b[31m\u202e.png").symlink_to("/etc/passwd")
    source = open_source(tmp_path)
    (problem,) = source.problems
    assert problem.message.isprintable() and "\\n" in problem.message
