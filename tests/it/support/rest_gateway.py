"""A REST API in front of webhook.rest: what any gateway that can call one SQL function does."""

import http.server
import os
import subprocess
import sys

CALL = "select status, body from webhook.rest(:'method', :'path', nullif(:'body', '')::jsonb)"


class Gateway(http.server.BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        variables = {"method": self.command, "path": self.path, "body": body}
        psql = [os.environ["PSQL"], "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        for name, value in variables.items():
            psql += ["-v", f"{name}={value}"]
        done = subprocess.run(psql, input=CALL, capture_output=True, text=True)
        status, body = done.stdout.strip().split("|", 1) if done.returncode == 0 else ("500", done.stderr)
        self.send_response(int(status))
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
print(server.server_port, flush=True)
server.serve_forever()
