"""`distinv keygen`: make a cluster key."""

from __future__ import annotations

import argparse
import os
import sys

from distinv.cli.options import Commands, add_json
from distinv.cli.output import print_json
from distinv.cli.problems import DONE
from distinv.errors import ConfigError


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "keygen",
        help="make a cluster key",
        description="Make a random cluster key. Give the same one to every server and client: "
        "who has it may do everything.",
    )
    parser.add_argument(
        "file", nargs="?", help="where to write it, readable for you alone (else it is printed)"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from distinv.wire.seal import KeySeal, new_key

    key = new_key()
    fingerprint = KeySeal(key).fingerprint.hex()
    if options.file is None:
        print_json({"key": key.hex(), "fingerprint": fingerprint}) if options.json else print(
            key.hex()
        )
        return DONE
    _write(options.file, key)
    if options.json:
        print_json({"file": options.file, "fingerprint": fingerprint})
    else:
        print(f"wrote the key {fingerprint} to {options.file}", file=sys.stderr)
    return DONE


def _write(path: str, key: bytes) -> None:
    """Never over another key: the servers that have it would be lost."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path} exists already: name another file") from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(key.hex() + "\n")
