from lowest_load_election import LowestLoad

from distinv.testing import ElectionSuite

TestLowestLoad = ElectionSuite.of(LowestLoad)
