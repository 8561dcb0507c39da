"""The command line: `verossim VERB`. Here is what can be said; each verb's work is in a file that is loaded when it is called.

Results go to standard output, as tables or with --json as one JSON document; all else goes to standard error. An error is
one line with its code and one with the way out; its exit status follows sysexits (see `errors`). Settings of families and
codecs are options of `fit` by their own names, though none of them is written here: `arguments.spelled_out` finds them.
"""

import sys
from typing import Annotated

import typer

from ..errors import BadConfig
from . import measuring
from .arguments import spelled_out
from .options import DATA, JSON, MODEL, OVERWRITE, SEED, SETTINGS, TRACE, app, speaking

__all__ = ["app", "main"]

INTERRUPTED = 130


@app.command()
def fit(
    source: Annotated[str | None, typer.Argument(help="What to learn from: a path or hf:NAME.", metavar="DATA")] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Folder for the model.")] = None,
    family: Annotated[str | None, typer.Option("--family", help="Kind of model: list families.  [gmm; of pairs GPT]")] = None,
    components: Annotated[str | None, typer.Option("--components", help="Number of components, or auto.")] = None,
    covariance: Annotated[str | None, typer.Option("--covariance", help="Shape of the covariances, or auto.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Column that holds the class.")] = None,
    weight: Annotated[str | None, typer.Option("--weight", help="Column that says how much each record counts.")] = None,
    size: Annotated[str | None, typer.Option("--size", help="Pixels of a picture's shorter side.")] = None,
    over: Annotated[str | None, typer.Option("--over", help="Saved model (vae) whose latents are to be learned.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Saved model of the same family to go on from.")] = None,
    condition: Annotated[str | None, typer.Option("--condition", help="Column, or several with commas, that is given.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Column of the texts that are learned.")] = None,
    documents: Annotated[str | None, typer.Option("--documents", help="Cut text files at: file, line, blank, tune.")] = None,
    modality: Annotated[str | None, typer.Option("--modality", help="image, table or text, where data may be several.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="The same seed gives the same model.  [0]")] = None,
    held_out: Annotated[float | None, typer.Option("--held-out", help="Share of records set aside to judge by.  [0.1]")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first record that cannot be used.")] = False,
    samples: Annotated[str | None, typer.Option("--samples", help="Records to see in all, such as 200_000 or 2M.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Time to finish in, such as 90s, 20m or 2h.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="fp32, bf16, fp16 or auto.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Learn also where there is too little to learn from.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Begin a run anew instead of going on with it.")] = False,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or auto.")] = None,
    settings: SETTINGS = None,
    config: Annotated[str | None, typer.Option("--config", help="TOML file of these options; those given here win.")] = None,
    overwrite: OVERWRITE = False, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Learn the distribution of DATA and save the model. What learns by gradient can be stopped; the same command goes on.

    The settings of the family and of the codec are options too, by their names, such as --iterations 50; they are listed by:
    verossim list settings gmm
    """
    given = {"source": source, "output": output, "family": family, "components": components, "covariance": covariance,
             "label": label, "weight": weight, "size": size, "modality": modality, "seed": seed, "held_out": held_out,
             "strict": strict or None, "samples": samples, "budget": budget, "precision": precision,
             "restart": restart or None, "force": force or None, "device": device, "over": over,
             "start": start, "condition": condition, "target": target, "documents": documents}
    with speaking(as_json) as voice:
        from .learning import learn, requested
        voice.answer(learn(voice, requested(given, settings or [], config), overwrite))


@app.command()
def sample(
    model: MODEL,
    n: Annotated[int | None, typer.Option("-n", help="How many; where nothing is said 16, or 1 text.")] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Folder, .csv, .parquet; of texts .txt, .jsonl.")] = None,
    condition: Annotated[list[str] | None, typer.Option("--condition",
                                                        help="The class to make, as label=VALUE; the text of a pair.")] = None,
    seed: SEED = 0,
    steps: Annotated[str | None, typer.Option("--steps", help="Steps from noise to record.")] = None,
    solver: Annotated[str | None, typer.Option("--solver", help="heun, euler, dpm or ancestral.")] = None,
    guidance: Annotated[str | None, typer.Option("--guidance", help="Stress on the condition; 1 is just it.")] = None,
    truncation: Annotated[str | None, typer.Option("--truncation", help="Below 1: more usual, less diverse (gan).")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="What texts go on from.")] = None,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="A text ends before this; may be repeated.")] = None,
    tokens: Annotated[str | None, typer.Option("--tokens", help="Most tokens of a text.")] = None,
    temperature: Annotated[str | None, typer.Option("--temperature",
                                                    help="Below 1: more usual texts; 0: the likeliest.")] = None,
    top_k: Annotated[str | None, typer.Option("--top-k", help="Only so many of the likeliest tokens.")] = None,
    top_p: Annotated[str | None, typer.Option("--top-p",
                                              help="Only the likeliest tokens that together are so probable.")] = None,
    after: Annotated[str | None, typer.Option("--after", help="What stands after the gap that a text is to fill.")] = None,
    regex: Annotated[str | None, typer.Option("--regex", help="What is written matches this regular expression.")] = None,
    schema: Annotated[str | None, typer.Option("--schema", help="What is written is JSON of this schema or file.")] = None,
    settings: SETTINGS = None,
    format: Annotated[str | None, typer.Option("--format", help="csv or parquet, for tables.")] = None,
    overwrite: OVERWRITE = False, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Make new records: pictures and a contact sheet, a table, or texts, which are shown as they are written."""
    with speaking(as_json) as voice:
        from .arguments import assignments
        from .making import sample
        knobs = assignments(settings, steps=steps, solver=solver, guidance=guidance, truncation=truncation, tokens=tokens,
                            temperature=temperature, top_k=top_k, top_p=top_p)
        asked = {"prompt": prompt, "stop": stop, "after": after, "regex": regex, "schema": schema}
        voice.answer(sample(voice, model, n, output, condition or [], seed, format, overwrite, knobs, asked))


@app.command("log-prob")
def log_prob(
    model: MODEL, source: DATA,
    output: Annotated[str | None, typer.Option("--output", "-o", help="A .csv or .parquet file of the scores.")] = None,
    condition: Annotated[str | None, typer.Option("--condition", help="Score given this class, as label=VALUE.")] = None,
    method: Annotated[str | None, typer.Option("--method", help="Which: flow, bound, iwae, elbo, ais; or all.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Whether probabilities sum to one; bounds (gan).")] = False,
    outliers: Annotated[int, typer.Option("--outliers", help="How many of the least probable to show.", min=0)] = 10,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show each token of texts by how much it surprises.")] = False,
    overwrite: OVERWRITE = False, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Say how probable each record is: nats, bits per dimension, and the least probable ones."""
    with speaking(as_json) as voice:
        if tokens:
            if output or condition or method or check:
                raise BadConfig("USAGE", "--tokens shows texts, and takes no other option.", "Leave the others out.")
            from .texts import heat
            return voice.answer(heat(voice, model, source))
        from .judging import log_prob
        voice.answer(log_prob(voice, model, source, output, condition, method, outliers, overwrite, check))


@app.command()
def predict(
    model: MODEL, source: DATA,
    output: Annotated[str | None, typer.Option("--output", "-o", help="A .csv or .parquet file of the probabilities.")] = None,
    overwrite: OVERWRITE = False, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Say which class each record belongs to, P(Y | X), by Bayes' rule."""
    with speaking(as_json) as voice:
        from .judging import predict
        voice.answer(predict(voice, model, source, output, overwrite))


@app.command()
def complete(
    model: MODEL, source: DATA,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder, or a .csv or .parquet file.")],
    mask: Annotated[str | None, typer.Option("--mask", help="Folder of masks named as the pictures; white: fill.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Draw what is missing; without it, its mean is taken.")] = None,
    overwrite: OVERWRITE = False, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Fill in missing cells, or the transparent or masked pixels of pictures."""
    with speaking(as_json) as voice:
        from .completing import complete
        voice.answer(complete(voice, model, source, output, mask, seed, overwrite))


@app.command()
def encode(
    model: MODEL, source: DATA,
    output: Annotated[str, typer.Option("--output", "-o", help="A .npy file of the latents.")],
    overwrite: OVERWRITE = False, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Write the latents of records: what the model would make them from."""
    with speaking(as_json) as voice:
        from .latents import encode
        voice.answer(encode(voice, model, source, output, overwrite))


@app.command()
def decode(
    model: MODEL,
    latents: Annotated[str, typer.Argument(help="A .npy file of latents, as encode writes.", metavar="LATENTS")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder, or a .csv or .parquet file.")],
    condition: Annotated[str | None, typer.Option("--condition", help="The class to decode as, as label=VALUE.")] = None,
    overwrite: OVERWRITE = False, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Make the records of latents."""
    with speaking(as_json) as voice:
        from .latents import decode
        voice.answer(decode(voice, model, latents, output, condition, overwrite))


@app.command()
def interpolate(
    model: MODEL, source: DATA,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder, or a .csv or .parquet file.")],
    n: Annotated[int, typer.Option("-n", help="How many on the way, ends included.", min=2)] = 8,
    condition: Annotated[str | None, typer.Option("--condition", help="The class to decode as, as label=VALUE.")] = None,
    overwrite: OVERWRITE = False, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Go from the first record of DATA to the second through the model's latents, as a strip."""
    with speaking(as_json) as voice:
        from .latents import interpolate
        voice.answer(interpolate(voice, model, source, output, n, condition, overwrite))


@app.command()
def mix(
    model: MODEL,
    coarse: Annotated[int, typer.Option("--coarse", help="Number of the sample that gives the layout.")],
    fine: Annotated[int, typer.Option("--fine", help="Number of the sample that gives the styles.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder, or a .csv or .parquet file.")],
    layer: Annotated[int | None, typer.Option("--layer", help="From which layer on; without it, each in turn.")] = None,
    condition: Annotated[str | None, typer.Option("--condition", help="The class to make, as label=VALUE.")] = None,
    seed: SEED = 0, overwrite: OVERWRITE = False, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Put the styles of one sample of a gan on the layout of another."""
    with speaking(as_json) as voice:
        from .latents import mix
        voice.answer(mix(voice, model, coarse, fine, layer, condition, seed, output, overwrite))


@app.command()
def edit(
    model: MODEL,
    direction: Annotated[int, typer.Option("--direction", help="Which direction, from 0: those that change most come first.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder, or a .csv or .parquet file.")],
    strength: Annotated[str, typer.Option("--strength", help="How far: a range or numbers, in deviations.")] = "-3..3",
    source: Annotated[str | None, typer.Option("--source", metavar="DATA", help="Records to edit, not samples.")] = None,
    n: Annotated[int | None, typer.Option("-n", help="How many samples; 4 where nothing is said.")] = None,
    condition: Annotated[str | None, typer.Option("--condition", help="The class to make, as label=VALUE.")] = None,
    seed: SEED = 0, overwrite: OVERWRITE = False, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Move samples of a gan, or records, along a direction that was found without labels, as strips."""
    with speaking(as_json) as voice:
        from .latents import edit
        voice.answer(edit(voice, model, direction, strength, source, n, condition, seed, output, overwrite))


@app.command()
def chat(
    model: MODEL,
    system: Annotated[str | None, typer.Option("--system", help="What the answers should keep to.")] = None,
    seed: SEED = 0, settings: SETTINGS = None, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Answer what is written, line by line, by a model that learned from chats."""
    with speaking(as_json) as voice:
        from .arguments import assignments
        from .texts import chat
        voice.answer(chat(voice, model, system, seed, assignments(settings)))


@app.command()
def translate(
    model: MODEL,
    text: Annotated[str, typer.Argument(help="What to translate.", metavar="TEXT")],
    beam: Annotated[int, typer.Option("--beam", help="Hypotheses that the search keeps.")] = 4,
    seed: SEED = 0, settings: SETTINGS = None, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Translate a text by a model that learned from pairs."""
    with speaking(as_json) as voice:
        from .arguments import assignments
        from .texts import translate
        voice.answer(translate(voice, model, text, beam, seed, assignments(settings)))


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="Hugging Face folder, or a .gguf file.", metavar="FOLDER")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the model.")],
    as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Take in a language model that others have trained: GPT-2, Llama, Qwen2 or Qwen3."""
    with speaking(as_json) as voice:
        from .texts import take_in
        voice.answer(take_in(voice, source, output))


@app.command()
def export(
    model: MODEL,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder, or a .gguf file.")],
    format: Annotated[str | None, typer.Option("--format", help="hf (transformers, vLLM), gguf (llama.cpp), or peft "
                                                                "(low-rank adapters alone).  [hf]")] = None,
    base: Annotated[str | None, typer.Option("--base", help="The model that adapters rest on, where it was moved.")] = None,
    as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Write a language model for other programs."""
    with speaking(as_json) as voice:
        from .texts import give_out
        voice.answer(give_out(voice, model, output, format, base))


for verb in (measuring.evaluate, measuring.compare, measuring.audit, measuring.tour, measuring.utility):
    app.command()(verb)


@app.command()
def describe(model: MODEL, as_json: JSON = False, trace: TRACE = False) -> None:
    """Say what a model is: family, settings, columns, what it learned from and how that went."""
    with speaking(as_json) as voice:
        from .looking import describe
        voice.answer(describe(voice, model))


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="families, codecs, metrics, features or settings.", metavar="WHAT")],
    name: Annotated[str | None, typer.Argument(help="Whose settings.", metavar="[NAME]")] = None,
    as_json: JSON = False, trace: TRACE = False,
) -> None:
    """List what there is to choose from: families, codecs, metrics, features, or the settings of a family or codec."""
    with speaking(as_json) as voice:
        from .looking import shelves
        voice.answer(shelves(voice, what, name))


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and exits with its status: 0, or that of its error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        spelled = spelled_out(given, typer.main.get_command(app))
        status: int | None = app(args=spelled, prog_name="verossim", standalone_mode=False)
        if status == INTERRUPTED:  # typer has caught the interrupt
            raise KeyboardInterrupt
    except (Exception, KeyboardInterrupt) as error:
        from .console import failed
        status = failed(error, as_json="--json" in given, trace="--trace" in given)
    sys.exit(status if isinstance(status, int) else 0)
