"""What is said while a model is learned, event by event of the journal."""

from collections.abc import Callable, Mapping
from typing import Any

from .console import Voice, told

__all__ = ["narrator"]

SHOWN = ("coverage", "diversity", "overfit")  # signs beside the losses
Listen = Callable[[dict[str, Any]], None]


def narrator(voice: Voice) -> Listen:
    """What to say at each event of the journal; events that are not known here are passed over."""
    said: dict[str, Listen] = {
        "codec": lambda e: _codec(voice, e), "data": lambda e: _data(voice, e), "plan": lambda e: _plan(voice, e),
        "sweep": lambda e: voice.bar("learning", e["sweep"], e["of"], f"sweep {e['sweep']}: {told(e['objective'])}"),
        "candidate": lambda e: voice.note(f"candidate {_differences(e['settings'])}: BIC {told(e['bic'])}, "
                                          f"held out {told(e['held_out'])} nats"),
        "candidate left out": lambda e: voice.note(f"candidate left out, {_differences(e['settings'])}: {e['why']}"),
        "forecast": lambda e: _forecast(voice, e),
        "resumed": lambda e: voice.note(f"going on from {e['samples']:,} of {e['total']:,} records"),
        "retreat": lambda e: voice.warn(f"RETREAT: too many steps failed; the weights went back to "
                                        f"{'their average' if e['to'] == 'average' else 'the last that were saved'}, and the "
                                        f"rate to {told(e['rate'])}."),
        "alarm": lambda e: _alarm(voice, e),
        "warning": lambda e: voice.warn(f"{e['code']}: {e['message']} {e['hint']}".rstrip()),
    }
    health: dict[str, float] = {}
    said["health"] = lambda e: health.update(e["signs"])
    said["progress"] = lambda e: _progress(voice, e, health)
    return lambda event: said.get(event["event"], lambda _: None)(event)


def _codec(voice: Voice, event: dict[str, Any]) -> None:
    names = ("column", "type", "missing", "distinct", "range")
    voice.table("What the data was taken for", names, ([row[name] for name in names] for row in event["columns"]), beside=True)
    for note in event["notes"]:
        voice.note(f"note: {note}")


def _data(voice: Voice, event: dict[str, Any]) -> None:
    from ..spaces import Problem
    manifest = event["manifest"]
    voice.problems([Problem(**problem) for problem in event["problems"]], max(len(event["problems"]), manifest["skipped"]))
    voice.note(f"{manifest['records']:,} records: {manifest['train']:,} to learn from, {manifest['held_out']:,} held out; "
               f"{manifest['duplicates']:,} had occurred before, {manifest['skipped']:,} passed over")


def _plan(voice: Voice, event: dict[str, Any]) -> None:
    voice.note(f"plan: {event['batch']:,} records at a time, {event['bytes'] / 1e6:,.1f} MB of memory, "
               f"{event['sweep_bytes'] / 1e6:,.1f} MB read a sweep")


def _differences(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {settings[name]}" for name in ("covariance", "components") if name in settings)


def _forecast(voice: Voice, event: dict[str, Any]) -> None:
    training, config = event["training"], event["config"]
    width = f"width {config['width']}, " if config.get("width") else ""
    compiled = ", compiled" if training["compiled"] else ""
    voice.note(f"plan: {width}{event['parameters']:,} parameters, {training['samples']:,} records in steps of "
               f"{training['batch']:,}{f' in {n} rounds' if (n := training['accumulate']) > 1 else ''}, rate "
               f"{told(training['rate'])}, {training['precision']}{compiled}")
    voice.note(f"cost: {clock(event['seconds'])}, {event['memory'] / 1e6:,.0f} MB of memory, "
               f"{event['disk'] / 1e6:,.1f} MB on disk at most")


def _alarm(voice: Voice, event: dict[str, Any]) -> None:
    done = event["action"] or "nothing was left to do; look at the data, or change the settings that the documentation names"
    voice.warn(f"ALARM {event['sign']}: {event['cause']}. It was {told(event['value'])} at {event['exams']} exams in a row, "
               f"and should be {event['bounds']}. Done: {done}.")


def _progress(voice: Voice, event: dict[str, Any], health: Mapping[str, float]) -> None:
    learned = f"{event['bits']:.3f} bits/dim" if event["bits"] is not None else f"loss {told(event['loss'])}"
    well = "".join(f"  {name} {value:.2f}" for name in SHOWN if (value := health.get(name)) is not None)
    voice.bar("learning", event["samples"], event["total"],
              f"{event['samples']:,} of {event['total']:,}  {learned}{well}  {event['samples_per_second']:,.0f}/s  "
              f"{clock(event['seconds_left'])} left  {event['memory'] / 1e6:,.0f} MB")


def clock(seconds: float) -> str:
    """A time as people say it: 42 s, 3:07 min, 2:15 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours = divmod(round(seconds), 60), divmod(round(seconds / 60), 60)
    return f"{minutes[0]}:{minutes[1]:02d} min" if seconds < 3600 else f"{hours[0]}:{hours[1]:02d} h"
