"""A receiver of retraining requests: checks the signature, takes each event once.

Standard library alone: ``SIGNING_KEY=whsec_… python receiver.py`` listens on port 8000, without TLS.
"""

import base64
import hashlib
import hmac
import json
import os
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

KEY = base64.b64decode(os.environ["SIGNING_KEY"].removeprefix("whsec_"))
TOLERANCE = 300  # seconds that an event may be old, so that a recorded one cannot be sent again
MOST = 1 << 20
seen: set[str] = set()  # yours: a table, or the pipeline's own run ids


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), MOST))
        event_id, moment = self.headers.get("webhook-id", ""), self.headers.get("webhook-timestamp", "")
        signed = f"{event_id}.{moment}.".encode() + body
        expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        given = self.headers.get("webhook-signature", "").removeprefix("v1,")
        fresh = moment.isdigit() and abs(time.time() - int(moment)) < TOLERANCE
        if not (fresh and hmac.compare_digest(given, expected)):
            self.send_error(401)
            return
        if event_id not in seen:
            seen.add(event_id)
            request = json.loads(body)["data"]
            print("train", request["deployment"], request.get("dataWindow"), flush=True)
        self.send_response(202)
        self.end_headers()


if __name__ == "__main__":
    HTTPServer(("", 8000), Receiver).serve_forever()
