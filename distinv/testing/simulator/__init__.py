"""Whole clusters and their clients in virtual time (docs/simulator.md).

`plan` and `drawing` draw what will go wrong from a seed, `faults` are the ways in which it can.
`simulation` runs a plan in a `world` of `servers` (each with a `disk`) and `clients`, and
`checkers` judge it against a plain `model`. `campaign` runs many seeds, `story` tells of one,
`shrink` makes a failing one small; `planted` bugs and `hostile` elections show that it would be
noticed.
"""
