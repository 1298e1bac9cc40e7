"""``rnnzoo``: find the verb, run it, and turn errors of the user into one line."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module

from rnnzoo.cli.arguments import take_values
from rnnzoo.errors import find_input_error, refused_place, unknown_name
from rnnzoo.imports import import_code
from rnnzoo.terminal import echo, format_warning, print_traceback
from rnnzoo.version import __version__

VERBS = ("recipes", "cells", "models", "fit", "test", "predict", "generate", "compare", "gradients", "gates", "bench")
WITH_RECIPE = ("fit", "compare", "gradients")  # what they import becomes part of the recipe that they run
USAGE_EXIT = 2
INTERRUPTED_EXIT = 130
TERMINATED_EXIT = 143


def main(argv: list[str] | None = None) -> int:
    """Run a command line and return the exit code: 0, 2 for an error of the user, 130 or 143 when interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    warnings.formatwarning = format_warning
    try:
        words, imports = take_values(words, "--import")
        if not words or words[0] in ("--help", "-h", "help"):
            echo(usage())
            return 0
        if words[0] == "--version":
            echo(f"rnnzoo {__version__}")
            return 0
        if words[0] not in VERBS:
            raise unknown_name("rnnzoo", words[0], VERBS)
        for name in imports:
            import_code(name)
        kept = [f"--imports+={name}" for name in imports] if words[0] in WITH_RECIPE else []
        return import_module(f"rnnzoo.cli.{words[0]}").run([*words[1:], *kept])
    except KeyboardInterrupt:
        echo("rnnzoo: interrupted", file=sys.stderr)
        return INTERRUPTED_EXIT
    except SystemExit as stop:  # Lightning ends a training with codes of its own, 0 for a signal
        if type(stop).__name__ == "SIGTERMException":
            return TERMINATED_EXIT
        if isinstance(stop.__context__, KeyboardInterrupt):
            echo("rnnzoo: interrupted", file=sys.stderr)
            return INTERRUPTED_EXIT
        raise
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        known = find_input_error(error) or refused_place(error)
        if debug or known is None:
            sys.excepthook = print_traceback
            raise
        echo(f"rnnzoo: error: {' '.join(str(known).split())}", file=sys.stderr)
        return USAGE_EXIT


def usage() -> str:
    """Return the help text, with a line for each verb."""
    summaries = [(verb, import_module(f"rnnzoo.cli.{verb}").SUMMARY) for verb in VERBS]
    lines = [
        "usage: rnnzoo VERB [arguments]",
        "",
        "A model zoo of recurrent networks: every sequence pattern, every cell.",
        "",
        *(f"  {verb:<10}{summary}" for verb, summary in summaries),
        "",
        "rnnzoo VERB --help tells more. With --import FILE.py every verb knows the cells that your file registers.",
        "--version prints the version; --debug shows where an error comes from.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
