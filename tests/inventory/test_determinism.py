"""The same log gives the same bytes everywhere, whatever the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import hashlib, sys
sys.path.insert(0, {here!r})
from inventory_kit import Log
from distinv.inventory import calls
from distinv.model import Line

log, digest = Log(), hashlib.sha256()
skus = [f"sku-{{number}}" for number in range(40)]
sessions = [log.open(nonce, f"till-{{nonce}}") for nonce in range(3)]
number = [0, 0, 0]

def send(till, call):
    number[till] += 1
    digest.update(log.send(sessions[till], number[till], call, number[till] - 3).result)

attributes = {{f"name-{{n}}": n for n in range(10)}}
send(0, calls.execute([calls.put_item(sku, attributes=attributes) for sku in skus]))
send(1, calls.put_location("back"))
send(2, calls.receive(dict.fromkeys(skus, 5), reference="PO"))
for step in range(30):
    some = skus[step % 7 :: 3]
    send(step % 3, calls.ship(dict.fromkeys(some, 1 + step % 3), idempotency_key=f"k{{step}}"))
    send(step % 3, calls.transfer(dict.fromkeys(some[:4], 1), "main", "back"))
    send(step % 3, calls.adjust([Line(sku, 1, "back") for sku in some]))
    if step % 10 == 9:
        log.machine.flush()
for ask in (calls.list_levels(), calls.list_items(), calls.ledger(sku="sku-7"), calls.digest()):
    digest.update(log.machine.query(ask.encode()))
print(digest.hexdigest(), log.machine.state_digest(), log.machine.seq)
"""


def test_the_hash_seed_changes_nothing() -> None:
    here = Path(__file__).parent
    root = str(here.parent.parent)
    results = []
    for seed in ("0", "1", "4747"):
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(here=str(here))],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            check=True,
        )
        results.append(result.stdout)
    assert results[0].split()[2] == "93"
    assert results[0] == results[1] == results[2]
