"""Live campaigns on real server processes, and the checker of what their clients were told.

See docs/torture.md. The pieces, from the bottom: `history` (what the clients were told, as JSON
lines), `books` (the inventory on a blackboard), `evidence` and `checker` (whether a history may
have happened), `plan` (the faults that a seed draws), `wires`, `namespaces` and `disk` (how they
are done), `nemesis` (who does them), `shop` (the clients), `campaign` (all of it together).
"""
