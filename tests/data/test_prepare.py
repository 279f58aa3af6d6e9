from made import made
from palate.data.holdout import Holdout
from palate.data.prepare import prepare
from palate.records import read_comparisons, read_header, write_comparisons


def test_pools_are_linted_cleared_of_benchmarks_and_split(tmp_path):
    rows = [made(f"The question numbered {i}?", id=str(i), batch="w") for i in range(40)]
    rows += [made("What is empty?", chosen="", id="empty"), made("Is it judged?", id="judged")]
    write_comparisons(tmp_path / "raw.parquet", rows)
    write_comparisons(tmp_path / "bench.parquet", [made("is it JUDGED", id="b")])
    done = prepare(
        {"p": tmp_path / "raw.parquet"},
        {"bench": tmp_path / "bench.parquet"},
        tmp_path / "run",
        Holdout(per_batch=10),
        tmp_path / "run" / "holdout.parquet",
    )
    train = {c.id for c in read_comparisons(done.split.train["p"])}
    test = {c.id for c in read_comparisons(done.split.test["p"])}
    assert len(test) == 10
    assert train | test == {str(i) for i in range(40)}
    assert [f.id for f in done.lint["p"].findings] == ["empty"]
    assert [id_ for id_, _, _ in done.overlap["p"].found] == ["judged"]
    head = read_header(tmp_path / "run" / "clean" / "p.parquet")
    assert head.details["lint"]["excluded"] == {"made": 1}
    assert head.inputs.keys() == {"p", "bench"}
