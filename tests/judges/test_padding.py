from palate.judges.huggingface import batches, padded


def test_batches_keep_every_row_within_the_budget():
    rows = [(1,) * n for n in (3, 50, 7, 7, 120, 1)]
    made = list(batches(rows, len, 100))
    assert sorted(row for batch in made for row in batch) == sorted(rows)
    assert all(len(batch) == 1 or len(batch) * len(batch[0]) <= 100 for batch in made)


def test_rows_are_padded_on_the_right():
    assert padded([(5, 6), (7,)], 3, 0).tolist() == [[5, 6, 0], [7, 0, 0]]
