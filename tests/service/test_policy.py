"""The operator's limits on requests: size, retention and safety."""

import pytest

from allaprima.domain.accounts import ApiKey
from allaprima.domain.fields import MAX_COUNT, MAX_SIDE, MAX_STEPS
from allaprima.domain.generation import GenerationRequest
from allaprima.errors import InvalidRequest
from allaprima.service.policy import Policy

REQUEST = GenerationRequest(prompt="a boat", seed=7, model="allaprima/sketch")
KEY = ApiKey(id="key", account_id="account", name=None, prefix="abcdefgh", created_at=0.0)
STRICT_KEY = ApiKey(id="key", account_id="account", name=None, prefix="abcdefgh", created_at=0.0, safety_threshold=0.5)


def refused(
    policy: Policy, request: GenerationRequest, key: ApiKey = KEY, image_ttl_s: float | None = None
) -> list[str]:
    """Return the fields that a policy refuses."""
    with pytest.raises(InvalidRequest) as caught:
        policy.apply(request, image_ttl_s, key)
    return [problem.field for problem in caught.value.problems]


def test_default_policy_allows_every_valid_request() -> None:
    largest = REQUEST.changed(width=MAX_SIDE, height=MAX_SIDE, steps=MAX_STEPS, count=MAX_COUNT, check_safety=False)
    assert Policy().apply(largest, None, KEY) == largest.changed(safety_threshold=0.8)


def test_policy_names_every_field_beyond_bounds() -> None:
    policy = Policy(max_side=512, max_steps=4, max_count=1, max_image_ttl_s=3600)
    request = REQUEST.changed(width=544, height=1024, steps=5, count=2)
    assert refused(policy, request, image_ttl_s=3601) == ["width", "height", "steps", "count", "image_ttl_s"]
    allowed = REQUEST.changed(width=512, height=512, steps=4, count=1)
    assert policy.apply(allowed, 3600, KEY).width == 512


@pytest.mark.parametrize(
    ("asked", "key", "threshold"),
    [(None, KEY, 0.7), (0.6, KEY, 0.6), (None, STRICT_KEY, 0.5), (0.4, STRICT_KEY, 0.4)],
)
def test_safety_threshold_defaults_to_key_then_server(asked: float | None, key: ApiKey, threshold: float) -> None:
    policy = Policy(default_safety_threshold=0.7)
    assert policy.apply(REQUEST.changed(safety_threshold=asked), None, key).safety_threshold == threshold


@pytest.mark.parametrize(("asked", "key"), [(0.2, KEY), (0.95, KEY), (0.6, STRICT_KEY)])
def test_safety_threshold_outside_bounds_is_refused(asked: float, key: ApiKey) -> None:
    policy = Policy(lowest_safety_threshold=0.3, highest_safety_threshold=0.9)
    assert refused(policy, REQUEST.changed(safety_threshold=asked), key) == ["safety_threshold"]


def test_default_safety_threshold_is_clamped() -> None:
    policy = Policy(default_safety_threshold=0.95, highest_safety_threshold=0.9, lowest_safety_threshold=0.6)
    assert policy.apply(REQUEST, None, KEY).safety_threshold == 0.9
    assert policy.apply(REQUEST, None, STRICT_KEY).safety_threshold == 0.5


@pytest.mark.parametrize(("is_optional", "key"), [(False, KEY), (True, STRICT_KEY)])
def test_safety_checker_is_off_only_if_server_and_key_allow(is_optional: bool, key: ApiKey) -> None:
    policy = Policy(safety_is_optional=is_optional)
    assert refused(policy, REQUEST.changed(check_safety=False), key) == ["check_safety"]
