"""Bots as services of replyhook: `bot` answers its requests, and `Client` calls its HTTP API."""

from . import payloads
from .bot import Bot, bot, serve, verify
from .client import ApiError, Client
from .payloads import *  # noqa: F403  the types of all payloads

__all__ = ["ApiError", "Bot", "Client", "bot", "serve", "verify", *payloads.__all__]
