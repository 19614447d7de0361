"""What every plugin of a kind must do, as tests that its author runs (docs/testing.md).

One file per extension point. A suite is a class of tests; `of` makes the one for a factory::

    from distinv.testing import ElectionSuite
    from lowest_load_election import LowestLoad

    TestLowestLoad = ElectionSuite.of(LowestLoad)

Each property is a test of its own, whose docstring is the promise and the reason why somebody
relies on it. A failure says what was done to the plugin and what it did.
"""
