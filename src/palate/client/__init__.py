"""Asking a Palate server for rewards: from Python, from threads or tasks, from TRL."""

from palate.client.asynchronous import AsyncRewardClient
from palate.client.rows import Prompt, Row
from palate.client.synchronous import RewardClient

__all__ = ["AsyncRewardClient", "Prompt", "RewardClient", "Row"]
