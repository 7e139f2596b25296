"""An HTTP server that records what it receives and answers as configured.

receiver.py PORT FOLDER: requests go to FOLDER/requests.ndjson; answers come from FOLDER/answers.ndjson, a line a
request, and are 200 when there is none left. Where FOLDER/signing_key exists, a request whose signature the library
of Standard Webhooks does not confirm is answered 401.
"""

import base64
import http.server
import json
import pathlib
import sys
import threading

FOLDER = pathlib.Path(sys.argv[2])
LOCK = threading.Lock()


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def receive(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with LOCK:
            status, headers, text = self.answer(body)
            request = {
                "method": self.command,
                "path": self.path,
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "body": base64.b64encode(body).decode(),
                "status": status,
            }
            with open(FOLDER / "requests.ndjson", "a") as requests:
                requests.write(json.dumps(request) + "\n")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_PUT = do_PATCH = receive

    def answer(self, body):
        key = FOLDER / "signing_key"
        if key.exists():
            import standardwebhooks

            try:
                standardwebhooks.Webhook(key.read_text()).verify(body, dict(self.headers))
            except Exception as error:
                return 401, {}, str(error).encode()
        answers = FOLDER / "answers.ndjson"
        lines = answers.read_text().splitlines() if answers.exists() else []
        if not lines:
            return 200, {}, b""
        answers.write_text("".join(line + "\n" for line in lines[1:]))
        answer = json.loads(lines[0])
        return answer["status"], answer.get("headers", {}), answer.get("body", "").encode()

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
