"""A kill, a full disk, a damaged file or many processes lose no earlier results."""

import pytest

from benchmarks import _faults

FAULTS = {
    _faults.kill_while_encoding: 3,
    _faults.kill_while_searching: 2,
    _faults.kill_while_saving: 3,
    _faults.full_disk_while_encoding: 2,
    _faults.full_disk_while_saving: 2,
    _faults.bad_stores: 8,
    _faults.crowds: 1,
    _faults.flipped_bytes: 120,
    _faults.truncated_models: 40,
    _faults.mixed_models: 2,
    _faults.links: 30,
}


@pytest.mark.thorough
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_nothing_is_lost(fault, tmp_path):
    tried = fault(tmp_path, FAULTS[fault])
    assert tried.n_times >= FAULTS[fault]
    assert tried.lost == []
