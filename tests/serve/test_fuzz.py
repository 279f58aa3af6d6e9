"""Whatever the OpenAPI document allows, and much that it does not: no 500, no hang."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
)

pytestmark = pytest.mark.slow
CHECKS = [content_type_conformance, response_schema_conformance]
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_operation_answers_whatever_it_is_asked(mode, running):
    asked: dict[str, int] = {}
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.method.upper() == "GET":
            continue  # There is nothing in it to be wrong.

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
        def ask(case):
            answer = case.call(timeout=30)
            hurried = isinstance(case.body, dict) and "deadline_seconds" in case.body
            assert answer.status_code < 500 or (hurried and answer.status_code == 504), answer.text
            case.validate_response(answer, checks=CHECKS)
            asked[case.path] = asked.get(case.path, 0) + 1

        ask()
    assert running.http.get("/ready").status_code == 200
    assert len(asked) >= 14
    assert asked["/classify"] >= 60
