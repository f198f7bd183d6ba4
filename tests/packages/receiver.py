"""A receiver that writes down what it gets, with the signature verified as Standard Webhooks says.

    receiver.py PORT SECRETS RECEIVED

A line of RECEIVED is `verified ID` or `unverified ID`, with the id of the row. SECRETS has one secret a
line and is read with each request.
"""

import base64
import hashlib
import hmac
import http.server
import json
import pathlib
import sys

port, secrets, received = int(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])


def is_signed(headers, body):
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    given = [one.removeprefix("v1,") for one in (headers["webhook-signature"] or "").split()]
    for secret in secrets.read_text().split():
        key = base64.b64decode(secret.removeprefix("whsec_"))
        wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        if any(hmac.compare_digest(wanted, one) for one in given):
            return True
    return False


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        word = "verified" if is_signed(self.headers, body) else "unverified"
        with received.open("a") as file:
            for row in json.loads(body)["data"]:
                file.write(f"{word} {row['id']}\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", port), Receiver).serve_forever()
