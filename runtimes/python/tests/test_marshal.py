import collections
import decimal
import unittest

import support  # noqa: F401 - puts the runtime on the path

from _lambent import faults, marshal

Point = collections.namedtuple("Point", "x y")


class Response(unittest.TestCase):
    def check(self, value, expected):
        body, content_type = marshal.response(value)
        self.assertEqual((body.decode(), content_type), (expected, marshal.JSON))

    def test_plain_values(self):
        self.check({"a": [1, 2.5, None, True, "x"]}, '{"a": [1, 2.5, null, true, "x"]}')

    def test_text_stays_as_it_is(self):
        self.check("é\u2028€", '"é\u2028€"')

    def test_decimals_keep_their_digits(self):
        self.check({"price": decimal.Decimal("1.10")}, '{"price": 1.10}')
        self.check([decimal.Decimal("NaN"), decimal.Decimal("1E+5")], "[NaN, 1E+5]")

    def test_text_that_looks_like_a_decimal_mark_is_text(self):
        self.check(["number-00:1", decimal.Decimal("2")], '["number-00:1", 2]')

    def test_named_tuples_are_objects_at_any_depth(self):
        self.check([{"at": Point(1, Point(2, 3))}], '[{"at": {"x": 1, "y": {"x": 2, "y": 3}}}]')

    def test_bytes_inside_a_document_are_text(self):
        self.check({b"k": b"v"}, '{"k": "v"}')

    def test_bytes_alone_are_sent_as_they_are(self):
        self.assertEqual(marshal.response(b"\xff\x00"), (b"\xff\x00", marshal.RAW))

    def test_what_json_cannot_say_is_a_marshal_error(self):
        circular = []
        circular.append(circular)
        deep = []
        for _ in range(100000):
            deep = [deep]
        for value, message in (
            ({1}, "Object of type set is not JSON serializable"),
            (circular, "Circular reference detected"),
            (deep, "maximum recursion depth exceeded"),
            ({(1,): 2}, "keys must be str, int, float, bool or None, not tuple"),
            ({"k": b"\xff"}, "'utf-8' codec can't decode byte 0xff"),
            ("\ud800", "'utf-8' codec can't encode character"),
        ):
            with self.assertRaises(faults.Fault) as caught:
                marshal.response(value)
            self.assertEqual(caught.exception.kind, "Runtime.MarshalError")
            self.assertIn("Unable to marshal response: " + message, caught.exception.message)


class Event(unittest.TestCase):
    def test_json_is_parsed_and_anything_else_handed_on(self):
        self.assertEqual(marshal.event(b'\xef\xbb\xbf{"a": "\xc3\xa9"}', "application/json"), {"a": "é"})
        self.assertEqual(marshal.event(b"\xff", "text/plain"), b"\xff")

    def test_what_is_not_json_is_an_unmarshal_error(self):
        for body in (b"", b"{", b"NaN", b'"\xff"'):
            with self.assertRaises(faults.Fault) as caught:
                marshal.event(body, "application/json")
            self.assertEqual(caught.exception.kind, "Runtime.UnmarshalError")


class ErrorDocument(unittest.TestCase):
    def test_lone_surrogates_do_not_stop_an_error_from_being_reported(self):
        self.assertEqual(marshal.document({"m": "\ud800"}), b'{"m": "\\ud800"}')

    def test_headers_are_printable_ascii(self):
        self.assertEqual(marshal.header("\x7f\n\xe9"), b'"\\u007f\\n\\u00e9"')


if __name__ == "__main__":
    unittest.main()
