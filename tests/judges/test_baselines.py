import random

from palate.judges.baselines import FirstPosition, LengthChoice, RandomChoice
from palate.types import Message, Pair

PROMPT = (Message("user", "Why?"),)
PAIRS = [Pair(f"p{i}", PROMPT, "a" * (i % 5), f"{'b' * (i % 3)}") for i in range(400)]


def choices(judge, pairs):
    return {answer.pair_id: answer.choice for answer in judge.judge(pairs)}


def test_random_does_not_depend_on_the_order_of_asking():
    shuffled = random.Random(1).sample(PAIRS, len(PAIRS))
    assert choices(RandomChoice(7), PAIRS) == choices(RandomChoice(7), shuffled)


def test_random_depends_on_the_seed_and_is_fair():
    first = sum(choice == "first" for choice in choices(RandomChoice(0), PAIRS).values())
    assert 160 < first < 240
    assert choices(RandomChoice(0), PAIRS) != choices(RandomChoice(1), PAIRS)


def test_longer_and_shorter_count_characters_and_equal_numbers_tie():
    pairs = [Pair("a", PROMPT, "éé", "x"), Pair("b", PROMPT, "x", "yy"), Pair("c", PROMPT, "", "")]
    assert list(choices(LengthChoice(), pairs).values()) == ["first", "second", "tie"]
    assert list(choices(LengthChoice(longer=False), pairs).values()) == ["second", "first", "tie"]


def test_length_gives_its_scores():
    (answer,) = LengthChoice(longer=False).judge([Pair("a", PROMPT, "xyz", "x")])
    assert (answer.first_score, answer.second_score) == (-3.0, -1.0)


def test_first_position_answers_first():
    assert set(choices(FirstPosition(), PAIRS).values()) == {"first"}
