"""A WebAssembly component in Python: lambent:function/handler, event in, answer out (componentize-py)."""

import json

from wit_world import exports
from wit_world.exports import handler


class Handler(exports.Handler):
    def handle(self, event: bytes, context: handler.Context) -> bytes:
        name = json.loads(event).get("name", "you")
        print("called by", name)
        return json.dumps({"hello": name, "request": context.request_id}).encode()
