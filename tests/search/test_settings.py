"""What a search tries."""

from __future__ import annotations

import pytest

from pipeline.config import OptionError
from pipeline.search.settings import PRESETS, grid, settings_of


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_dense_twice_under_each_condition_and_unique_names(name):
    chosen, left_out = settings_of(PRESETS[name], 32)
    assert not left_out
    names = [setting.name for setting in chosen]
    assert len(set(names)) == len(names)
    for shifted in (False, True):
        dense = [one.condition for one in chosen if one.level is None and one.is_shifted is shifted]
        assert sorted(dense, key=repr) == sorted({setting.condition for setting in chosen}, key=repr)
    assert len(chosen) > 2 * len(dense)


def test_the_paper_preset_is_the_papers_grid_and_leaves_out_what_a_small_model_lacks():
    chosen, _ = settings_of(PRESETS["paper"], 4)
    pairs = {(setting.level.layer, setting.level.sparsity) for setting in chosen if setting.level}
    assert pairs == {(layer, s) for layer in (1, 2, 3, 4) for s in (0.3, 0.4, 0.5, 0.6)}
    fewer, left_out = settings_of(PRESETS["paper"], 3)
    assert len(fewer) == 14
    assert left_out == [f"i4 s0.{s}0 attention" for s in (3, 4, 5, 6)]


def test_a_grid_refuses_a_sparsity_out_of_range():
    with pytest.raises(OptionError, match=r"--sparsity 1\.5: must be a number from 0 to 0\.95"):
        grid((1,), (1.5,), ("attention",))
