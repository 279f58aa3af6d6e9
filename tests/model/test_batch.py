"""Groups and the packed row."""

import numpy as np
import pytest

from palate.model.packing import Tokens, group, pack


def tokens(*ids: int) -> Tokens:
    return np.array(ids, np.int32)


def test_pitfall_05_the_prefix_is_the_longest_common_one_and_leaves_each_response_a_token() -> None:
    shared = group([tokens(1, 2, 3, 4, 9), tokens(1, 2, 3, 5, 9)])
    assert shared.prefix.tolist() == [1, 2, 3]
    assert [s.tolist() for s in shared.suffixes] == [[4, 9], [5, 9]]
    nested = group([tokens(1, 2), tokens(1, 2, 3)])
    assert nested.prefix.tolist() == [1]
    apart = group([tokens(1, 2), tokens(3, 4)])
    assert apart.prefix.size == 0
    assert group([tokens(1, 2), tokens(1, 3)], shared=False).prefix.size == 0


def test_an_empty_conversation_is_refused() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        group([tokens(), tokens(1)])


def test_positions_of_each_response_continue_its_prompt() -> None:
    packed = pack([group([tokens(1, 2, 3, 4), tokens(1, 2, 5)]), group([tokens(7, 8)])])
    assert packed.ids.tolist() == [[1, 2, 3, 4, 5, 7, 8]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 2, 0, 1]]
    assert packed.ends.tolist() == [3, 4, 6]
