"""Prints the signature that Twilio's own Python library makes with a shared key.

    python tests/sdk/shared_key.py SECRET HMAC_SHA256 https://bot.example.com/webhook Body=hi From=+15550001111
"""

import sys

from twilio.request_validator import RequestValidator

secret, algorithm, url, *pairs = sys.argv[1:]
params = dict(pair.split("=", 1) for pair in pairs)
print(RequestValidator(secret).compute_signature(url, params, algorithm))
