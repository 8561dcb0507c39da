"""The journal keeps every event that was said, whatever happens to the program."""

import json
import os
import subprocess
import sys

import pytest
import torch

from verossim.errors import CannotWrite
from verossim.training import Journal, read_events


def test_events_come_back_in_order_after_reopening(tmp_path):
    path = tmp_path / "events.jsonl"
    for first in (0, 3):
        journal = Journal(path)
        for number in range(first, first + 3):
            journal.event("sweep", number=number)
        journal.close()
    assert [event["number"] for event in read_events(path)] == [0, 1, 2, 3, 4, 5]
    assert all(event["event"] == "sweep" and event["time"] > 0 for event in read_events(path))


def test_a_line_is_a_json_object_even_where_numbers_are_not(tmp_path):
    path = tmp_path / "events.jsonl"
    Journal(path).event("odd", worst=float("nan"), far=[float("inf"), 1.5], inner={"k": -float("inf")}, text="a\nb \ud800",
                        tensor=torch.tensor(2.0), path=tmp_path, nothing=None, yes=True)
    (line,) = path.read_text().splitlines()
    said = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert (said["worst"], said["far"], said["inner"]) == (None, [None, 1.5], {"k": None})
    assert (said["tensor"], said["path"], said["nothing"], said["yes"]) == (2.0, str(tmp_path), None, True)
    assert said["text"].startswith("a\nb")


def test_a_torn_last_line_loses_only_itself(tmp_path):
    path = tmp_path / "events.jsonl"
    Journal(path).event("whole", number=1)
    with path.open("a") as file:
        file.write('{"event": "torn", "num')
    assert [event["event"] for event in read_events(path)] == ["whole"]
    Journal(path).event("after", number=2)
    assert [event["event"] for event in read_events(path)] == ["whole", "after"]


def test_what_was_said_before_a_kill_is_there(tmp_path):
    path = tmp_path / "events.jsonl"
    program = ("import os, signal, sys; from verossim.training import Journal; journal = Journal(sys.argv[1]);"
               "[journal.event('said', number=n) for n in range(50)]; os.kill(os.getpid(), signal.SIGKILL)")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run([sys.executable, "-c", program, str(path)], check=False, env=environment, timeout=60)
    assert [event["number"] for event in read_events(path)] == list(range(50))


def test_listeners_hear_every_event_without_a_file():
    first, second = [], []
    journal = Journal(None, first.append)
    journal.event("one", value=1)
    journal.listen(second.append)
    journal.warn("CODE", "Something is odd.", "Look.")
    assert [said["event"] for said in first] == ["one", "warning"]
    assert [(said["event"], said["code"], said["hint"]) for said in second] == [("warning", "CODE", "Look.")]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(CannotWrite) as error:
        Journal(tmp_path / "nowhere" / "events.jsonl")
    assert error.value.code == "OUT_DENIED"
    assert "nowhere" in str(error.value)


def test_a_full_disk_is_said_once_and_stops_nothing():
    said = []
    journal = Journal("/dev/full", said.append)
    for number in range(3):
        journal.event("lost", number=number)
    assert [event.get("code", event["event"]) for event in said] == ["DISK_FULL", "lost", "lost", "lost"]
    journal.close()
