"""A site for a browser: `site.py ADDRESS PORT PAGE RESULT` serves the page, and writes what it posts into the file.

`/done` is answered when the page has posted, so that it is loaded only then."""

import http.server
import sys
import threading

address, port, page, result = sys.argv[1:]
posted = threading.Event()


class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/":
            posted.clear()
            with open(page, "rb") as file:
                self.answer(200, "text/html; charset=utf-8", file.read())
        elif self.path == "/done":
            posted.wait(30)
            self.answer(200 if posted.is_set() else 504, "text/plain", b"")
        else:
            self.answer(404, "text/plain", b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(result, "wb") as file:
            file.write(body)
        self.answer(200, "text/plain", b"ok")
        posted.set()

    def log_message(self, *words):
        pass


http.server.ThreadingHTTPServer((address, int(port)), Site).serve_forever()
