//! Bytes of a pipe into log lines: plain text by line ends, or the frames of `_LAMBDA_TELEMETRY_LOG_FD`.
//!
//! A frame is, in big-endian order: type and level (4 bytes), length (4), microseconds since 1970 (8), then the message. Types are
//! `0xA55A0003` for text and `0xA55A0002` for JSON, plus the level. Both readers are fed by code that nobody trusts: lengths are bounded,
//! and what is no frame is taken as text.

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use lambent_model::function::LogLevel;

/// A longer line is cut into pieces of this size: the most that CloudWatch Logs takes as one event.
pub(crate) const LINE_BYTES: usize = 256 * 1024;
const HEADER_BYTES: usize = 16;
const FRAME_TYPES: [u32; 2] = [0xA55A_0002, 0xA55A_0003];

/// One log event of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// When it was written, where the writer said so.
    pub at: Option<Timestamp>,
    /// Its level, where the writer said so.
    pub level: Option<LogLevel>,
    /// The text, without line end.
    pub text: Bytes,
}

impl Line {
    fn plain(text: Bytes) -> Self {
        Self { at: None, level: None, text }
    }
}

/// Cuts what it is fed into lines.
#[derive(Debug)]
pub(crate) struct Splitter {
    kind: Kind,
    buffer: BytesMut,
}

/// What comes through a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Frames,
}

impl Splitter {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, buffer: BytesMut::new() }
    }

    /// Takes bytes in, and gives out the lines they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Line)) {
        self.buffer.extend_from_slice(bytes);
        loop {
            let next = match self.kind {
                Kind::Text => self.text_line(),
                Kind::Frames => self.frame(),
            };
            match next {
                Some(line) => each(line),
                None => return,
            }
        }
    }

    /// What is left when the pipe ends.
    pub(crate) fn finish(&mut self) -> Option<Line> {
        let rest = self.buffer.split().freeze();
        (!rest.is_empty()).then(|| Line::plain(rest))
    }

    fn text_line(&mut self) -> Option<Line> {
        let within = self.buffer.len().min(LINE_BYTES);
        let end = self.buffer.iter().take(within).position(|byte| *byte == b'\n');
        let line = match end {
            Some(end) => self.buffer.split_to(end + 1).freeze().slice(..end),
            None if self.buffer.len() >= LINE_BYTES => self.buffer.split_to(LINE_BYTES).freeze(),
            None => return None,
        };
        Some(Line::plain(line))
    }

    fn frame(&mut self) -> Option<Line> {
        let header = self.buffer.first_chunk::<HEADER_BYTES>()?;
        let [a, b, c, d, e, f, g, h, time @ ..] = *header;
        let (kind, length) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]) as usize);
        if !FRAME_TYPES.contains(&(kind & !0x1c)) || length > LINE_BYTES * 4 {
            // Not from one of the runtimes; show it rather than lose it.
            self.kind = Kind::Text;
            return self.text_line();
        }
        if self.buffer.len() < HEADER_BYTES + length {
            return None;
        }
        let at = i64::from_be_bytes(time);
        let message = self.buffer.split_to(HEADER_BYTES + length).freeze().slice(HEADER_BYTES..);
        let text = message.strip_suffix(b"\n").map_or(message.clone(), |text| message.slice_ref(text));
        Some(Line { at: Timestamp::from_microsecond(at).ok(), level: level(kind & 0x1c), text })
    }
}

fn level(bits: u32) -> Option<LogLevel> {
    match bits {
        4 => Some(LogLevel::Trace),
        8 => Some(LogLevel::Debug),
        12 => Some(LogLevel::Info),
        16 => Some(LogLevel::Warn),
        20 => Some(LogLevel::Error),
        24 => Some(LogLevel::Fatal),
        _ => None,
    }
}

/// The `level` of a line that is a JSON object and has one.
pub(super) fn json_level(text: &[u8]) -> Option<LogLevel> {
    #[derive(serde::Deserialize)]
    struct Levelled<'a> {
        #[serde(borrow)]
        level: std::borrow::Cow<'a, str>,
    }
    if !text.starts_with(b"{") {
        return None;
    }
    let line: Levelled<'_> = serde_json::from_slice(text).ok()?;
    match line.level.to_ascii_uppercase().as_str() {
        "TRACE" => Some(LogLevel::Trace),
        "DEBUG" => Some(LogLevel::Debug),
        "INFO" => Some(LogLevel::Info),
        "WARN" | "WARNING" => Some(LogLevel::Warn),
        "ERROR" => Some(LogLevel::Error),
        "FATAL" | "CRITICAL" => Some(LogLevel::Fatal),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(kind: Kind, pieces: &[&[u8]]) -> Vec<Line> {
        let (mut splitter, mut lines) = (Splitter::new(kind), Vec::new());
        pieces.iter().for_each(|piece| splitter.feed(piece, |line| lines.push(line)));
        lines.extend(splitter.finish());
        lines
    }

    fn frame(level: u32, text: &str) -> Vec<u8> {
        let mut frame = (0xA55A_0003_u32 | level).to_be_bytes().to_vec();
        frame.extend((text.len() as u32).to_be_bytes());
        frame.extend(1_700_000_000_000_000_u64.to_be_bytes());
        frame.extend(text.as_bytes());
        frame
    }

    #[test]
    fn lines_end_at_line_ends_and_at_the_bound() {
        let texts = |lines: Vec<Line>| lines.into_iter().map(|line| line.text.len()).collect::<Vec<_>>();
        assert_eq!(texts(all(Kind::Text, &[b"ab\nc", b"d\n\ne"])), [2, 2, 0, 1]);
        let long = vec![b'x'; LINE_BYTES + 3];
        assert_eq!(texts(all(Kind::Text, &[&long])), [LINE_BYTES, 3]);
    }

    #[test]
    fn frames_carry_time_and_level_and_may_hold_line_ends() {
        let mut bytes = frame(20, "Traceback:\n  boom\n");
        bytes.extend(frame(0, "plain"));
        let (head, rest) = bytes.split_at(9);
        let lines = all(Kind::Frames, &[head, rest]);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].text, "Traceback:\n  boom");
        assert_eq!(lines[0].level, Some(LogLevel::Error));
        assert_eq!(lines[0].at, Timestamp::from_second(1_700_000_000).ok());
        assert_eq!(lines[1].level, None);
    }

    #[test]
    fn what_is_no_frame_is_text() {
        let lines = all(Kind::Frames, &[b"somebody printed to the log pipe\nand again\n"]);
        assert_eq!(lines[0].text, "somebody printed to the log pipe");
        assert_eq!(lines[1].text, "and again");
    }

    #[test]
    fn levels_are_read_from_json_lines_only() {
        assert_eq!(json_level(br#"{"level":"debug","message":"x"}"#), Some(LogLevel::Debug));
        assert_eq!(json_level(b"level: debug"), None);
        assert_eq!(json_level(br#"{"message":"x"}"#), None);
    }

    proptest! {
        #[test]
        fn no_byte_of_text_is_lost_however_it_is_cut(
            bytes in proptest::collection::vec(any::<u8>(), 0..2_000),
            cuts in proptest::collection::vec(1_usize..50, 1..100),
        ) {
            let (mut splitter, mut out, mut rest) = (Splitter::new(Kind::Text), Vec::new(), bytes.as_slice());
            for cut in cuts {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                splitter.feed(piece, |line| { out.extend_from_slice(&line.text); out.push(b'\n'); });
                rest = later;
            }
            splitter.feed(rest, |line| { out.extend_from_slice(&line.text); out.push(b'\n'); });
            if let Some(line) = splitter.finish() { out.extend_from_slice(&line.text); }
            prop_assert_eq!(out, bytes);
        }

        #[test]
        fn any_bytes_as_frames_are_taken_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            all(Kind::Frames, &[&bytes]);
        }
    }
}
