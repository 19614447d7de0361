"""The commands that ask no cluster, and the command line as a whole."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from distinv.wire.seal import load_key

if TYPE_CHECKING:
    from command_line import CommandLine


def test_keygen_prints_a_key(distinv: CommandLine) -> None:
    first, second = distinv("keygen").out, distinv("keygen").out
    assert re.fullmatch(r"[0-9a-f]{64}\n", first)
    assert first != second
    made = distinv("keygen", "--json").json
    assert len(bytes.fromhex(made["key"])) == 32
    assert re.fullmatch(r"[0-9a-f]{8}", made["fingerprint"])


def test_keygen_writes_a_private_file_once(distinv: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "shop.key"
    made = distinv("keygen", str(path), "--json")
    assert made.status == 0
    assert made.json["file"] == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = load_key(path)
    assert key is not None
    again = distinv("keygen", str(path))
    assert again.status == 2
    assert again.err == f"distinv: {path} exists already: name another file\n"
    assert load_key(path) == key
    assert "cannot write" in distinv("keygen", str(tmp_path / "none" / "key")).err


def test_plugins_are_listed_with_where_they_come_from(distinv: CommandLine) -> None:
    listed = distinv("plugins", "--json").json["plugins"]
    names = {(each["kind"], each["name"]) for each in listed if each["distribution"] == "distinv"}
    assert {
        ("election", "bully"),
        ("election", "ring"),
        ("multicast", "fanout"),
        ("discovery", "beacon"),
        ("discovery", "static"),
        ("transport", "udp"),
        ("transport", "faulty"),
        ("storage", "journal"),
    } <= names
    table = distinv("plugins").out.splitlines()
    assert table[0].split() == ["kind", "name", "from"]


def test_simulate_replays_a_seed_bit_for_bit(distinv: CommandLine) -> None:
    first = distinv("simulate", "--seed", "3", "--json")
    assert first.status == 0
    assert first.json["verdict"] == "ok"
    assert re.fullmatch(r"[0-9a-f]{16,}", first.json["trace"])
    assert distinv("simulate", "--seed", "3").out.startswith(f"trace {first.json['trace']}")


def test_simulate_runs_many_seeds(distinv: CommandLine) -> None:
    ran = distinv("simulate", "--seeds", "0:2", "--jobs", "1", "--json")
    assert ran.status == 0
    assert (ran.json["verdict"], ran.json["seeds"]) == ("ok", 2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("simulate", "--seeds", "5:5"), "there is no seed in it"),
        (("simulate", "--seeds", "5"), "give A:B"),
        (("simulate", "--seeds", "a:b"), "give A:B"),
        (("simulate", "--seeds", "0:2", "--trace"), "need a single seed"),
        (("simulate", "--jobs", "0"), "at least 1"),
        (("demo", "--servers", "0"), "at least 1"),
        (("serve",), "--data"),
        (("sing",), "invalid choice: 'sing'"),
        ((), "COMMAND"),
    ],
)
def test_wrong_usage_of_the_others(
    distinv: CommandLine, arguments: tuple[str, ...], text: str
) -> None:
    ran = distinv(*arguments)
    assert ran.status == 2
    assert text in ran.err


@pytest.mark.parametrize("backend", ["trio", "uvloop"])
def test_an_event_loop_that_is_not_installed_is_named(
    backend: str, distinv: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distinv.cli.options.find_spec", lambda name: None)
    ran = distinv("status", "--cluster", "shop", "--backend", backend)
    assert ran.status == 2
    assert ran.err == f"distinv: {backend} is not installed: pip install 'distinv[{backend}]'\n"


def test_every_command_has_help(distinv: CommandLine) -> None:
    overview = distinv("--help").out
    commands = re.findall(r"^    ([\w-]+)", overview, re.MULTILINE)
    assert {"serve", "status", "ship", "simulate", "demo"} <= set(commands)
    for command in commands:
        ran = distinv(command, "--help")
        assert ran.status == 0
        assert f"usage: distinv {command}" in ran.out
    assert distinv("--version").out.startswith("distinv ")


def test_a_reader_that_goes_away_is_no_error() -> None:
    ran = subprocess.run(
        f"{sys.executable} -m distinv plugins --json | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == ""
    assert ran.returncode in (0, 141)


def test_the_command_line_starts_without_the_heavy_parts() -> None:
    program = "import json, sys; import distinv.cli.main; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(ran.stdout))
    assert not loaded & {"anyio", "cryptography", "msgspec", "pluggy", "rich", "sqlite3", "trio"}
