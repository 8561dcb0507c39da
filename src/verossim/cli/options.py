"""The command line's app, and the options that several verbs have."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .console import Voice

__all__ = ["DATA", "JSON", "LABEL", "MODEL", "OVERWRITE", "SEED", "SETTINGS", "TRACE", "app", "speaking"]

app = typer.Typer(
    name="verossim", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Generative models of your data: make new examples, and say how probable given ones are.",
    context_settings={"help_option_names": ["-h", "--help"]})

MODEL = Annotated[str, typer.Argument(help="Folder of a saved model.", metavar="MODEL")]
DATA = Annotated[str, typer.Argument(metavar="DATA", help="Folder of pictures, text, CSV, JSON lines, Parquet, Arrow, .npy, a "
                                                          "zip of these, or hf:NAME.")]
OVERWRITE = Annotated[bool, typer.Option("--overwrite", help="Replace also what verossim did not make, or was changed since.")]
JSON = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]
TRACE = Annotated[bool, typer.Option("--trace", help="After an error, show the whole way to it.")]
SETTINGS = Annotated[list[str] | None, typer.Option("--set", help="Any setting as NAME=VALUE; may be repeated.")]
SEED = Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")]
LABEL = Annotated[str | None, typer.Option("--label", help="Column that holds the class.")]


def speaking(as_json: bool) -> "Voice":
    """The voice of a verb, loaded when one speaks: --help does without."""
    from .console import Voice
    return Voice(as_json)
