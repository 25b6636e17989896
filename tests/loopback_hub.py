"""The fake Hub under the name that other programs import."""

from fakes.loopback_hub import *  # noqa: F403
