import socket
import threading
import unittest

import support  # noqa: F401 - puts the runtime on the path

from _lambent.client import ProtocolError, RuntimeClient

HEAD = b"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: one\r\n"


class ScriptedServer:
    """Answers each connection with the pieces it is given, then closes it."""

    def __init__(self, *connections):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:{}".format(self._listener.getsockname()[1])
        self.requests = []
        self._thread = threading.Thread(target=self._run, args=(connections,), daemon=True)
        self._thread.start()

    def _run(self, connections):
        for answers in connections:
            connection, _ = self._listener.accept()
            with connection:
                for pieces in answers:
                    self.requests.append(self._request(connection))
                    for piece in pieces:
                        connection.sendall(piece)

    @staticmethod
    def _request(connection):
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(body) < length:
            body += connection.recv(65536)
        return head, body

    def close(self):
        self._thread.join(10)
        self._listener.close()


class Client(unittest.TestCase):
    def serve(self, *connections):
        server = ScriptedServer(*connections)
        self.addCleanup(server.close)
        client = RuntimeClient(server.address)
        self.addCleanup(client._close)
        return server, client

    def test_a_response_may_arrive_in_any_pieces(self):
        whole = HEAD + b"Content-Length: 5\r\n\r\nhello"
        _, client = self.serve([[whole[i : i + 1] for i in range(len(whole))], [whole]])
        self.assertEqual(client.next().body, b"hello")
        self.assertEqual(client.next().body, b"hello")

    def test_a_large_event_is_read_whole(self):
        body = bytes(range(256)) * 4096 * 5
        _, client = self.serve([[HEAD + b"Content-Length: %d\r\n\r\n" % len(body), body]])
        self.assertEqual(client.next().body, body)

    def test_a_large_answer_is_sent_whole(self):
        body = b"x" * (6 * 1024 * 1024)
        server, client = self.serve([[b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"]])
        client.respond("one", body, b"application/json")
        self.assertEqual(len(server.requests[0][1]), len(body))

    def test_a_kept_connection_that_was_closed_is_opened_again(self):
        answer = [HEAD + b"Content-Length: 2\r\n\r\n{}"]
        server, client = self.serve([answer], [answer])
        client.next()
        client.next()
        self.assertEqual(len(server.requests), 2)

    def test_an_end_inside_a_body_is_an_error(self):
        _, client = self.serve([[HEAD + b"Content-Length: 10\r\n\r\nhalf"]])
        with self.assertRaises(ConnectionResetError):
            client.next()

    def test_a_refusal_is_an_error_unless_it_is_about_size(self):
        _, client = self.serve([[b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"], [b"HTTP/1.1 403 No\r\n\r\n"]])
        client.respond("one", b"{}", b"application/json")
        with self.assertRaises(ProtocolError):
            client.respond("one", b"{}", b"application/json")

    def test_errors_carry_their_type_and_a_cause_that_fits(self):
        accepted = [b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"]
        server, client = self.serve([accepted, accepted])
        client.fail("one", b"{}", "Ä\r\nX: y", b"{}")
        client.fail("one", b"{}", "Kind", b"x" * 100000)
        self.assertIn(b"\r\nLambda-Runtime-Function-Error-Type: ???X: y\r\n", server.requests[0][0])
        self.assertIn(b"Xray-Error-Cause: {}", server.requests[0][0])
        self.assertNotIn(b"Xray", server.requests[1][0])


if __name__ == "__main__":
    unittest.main()
