//! Whether an event is JSON, and what Lambda says where it is not.
//!
//! Lambda reads events with Jackson; the words for the common faults are Jackson's, so that what a person finds when
//! searching for them helps here too.

use serde::de::IgnoredAny;

const EXPECTED: &str = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')";

/// None of the payload is kept; it only has to be one JSON value.
pub(crate) fn check(payload: &[u8]) -> Result<(), String> {
    let fault = match serde_json::from_slice::<IgnoredAny>(payload) {
        Ok(_) => match std::str::from_utf8(payload) {
            Ok(_) => return Ok(()),
            Err(error) => invalid_utf8(payload, error.valid_up_to()),
        },
        Err(error) => fault(payload, &error),
    };
    Err(format!("Could not parse request body into json: Could not parse payload into json: {fault}"))
}

fn fault(payload: &[u8], error: &serde_json::Error) -> String {
    if let Err(error) = std::str::from_utf8(payload) {
        return invalid_utf8(payload, error.valid_up_to());
    }
    let (line, column) = (error.line(), error.column());
    let at = offset(payload, line, column);
    let text = payload.get(at..).unwrap_or_default();
    let word: String =
        text.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').map(|b| char::from(*b)).collect();
    match text.first() {
        _ if error.is_eof() => {
            format!("Unexpected end-of-input\n at {}", source(line, column + 1))
        }
        Some(first) if first.is_ascii_alphabetic() => {
            format!("Unrecognized token '{word}': was expecting {EXPECTED}\n at {}", source(line, column + word.len()))
        }
        Some(first) => {
            let shown = char::from(*first);
            format!(
                "Unexpected character ('{shown}' (code {first})): expected a valid value {EXPECTED}\n at {}",
                source(line, column)
            )
        }
        None => format!("Unexpected end-of-input\n at {}", source(line, column)),
    }
}

fn invalid_utf8(payload: &[u8], at: usize) -> String {
    let byte = payload.get(at).copied().unwrap_or_default();
    let before = payload.get(..at).unwrap_or_default();
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    // Outside a string Jackson does not yet decode: it sees one strange byte.
    if before.iter().all(u8::is_ascii_whitespace) {
        return format!(
            "Unexpected character ((CTRL-CHAR, code {byte})): expected a valid value {EXPECTED}\n at {}",
            source(line, column)
        );
    }
    format!("Invalid UTF-8 start byte 0x{byte:x}\n at {}", source(line, column))
}

fn source(line: usize, column: usize) -> String {
    format!(
        "[Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: {line}, column: {column}]"
    )
}

/// Where serde's line and column are; it counts both from one and points behind a word's first letter.
fn offset(payload: &[u8], line: usize, column: usize) -> usize {
    let start: usize = payload.split_inclusive(|b| *b == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    start + column.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_any_json_value() {
        for good in ["{}", "null", "1", "\"x\"", " [1, {\"a\": \"ü\"}]\n"] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(check(deep.as_bytes()), Ok(()), "nesting costs no stack");
    }

    #[test]
    fn faults_are_told_in_jacksons_words() {
        let said = |payload: &[u8]| check(payload).err().unwrap_or_default();
        let start = "Could not parse request body into json: Could not parse payload into json: ";
        assert_eq!(
            said(b"\x99"),
            format!(
                "{start}Unexpected character ((CTRL-CHAR, code 153)): expected a valid value (JSON String, Number, \
                     Array, Object or token 'null', 'true' or 'false')\n at [Source: REDACTED \
                     (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: 1, column: 1]"
            )
        );
        assert!(said(b"\"a\x87\"").starts_with(&format!("{start}Invalid UTF-8 start byte 0x87\n")));
        assert!(
            said(b"xyz").starts_with(&format!("{start}Unrecognized token 'xyz': was expecting")),
            "{}",
            said(b"xyz")
        );
        assert!(said(b"{\"a\":").starts_with(&format!("{start}Unexpected end-of-input\n")));
        assert!(
            said(b"{} }").starts_with(&format!("{start}Unexpected character ('}}' (code 125))")),
            "{}",
            said(b"{} }")
        );
    }
}
