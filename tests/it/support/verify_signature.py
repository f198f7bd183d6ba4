"""Verifies one request with the package that receivers of Standard Webhooks use."""

import json
import sys

from standardwebhooks import Webhook

request = json.load(sys.stdin)
Webhook(request["secret"]).verify(request["body"], request["headers"])
