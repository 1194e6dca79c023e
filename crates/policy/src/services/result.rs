//! A result made a digest while it is read, within bounds.

use aws_lc_rs::digest::{Context, SHA256};

use super::{Error, MOST_BYTES, MOST_ROWS, ResultDigest};

/// What a value is; its bytes follow.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Kind {
    Null = 0,
    Integer = 1,
    Real = 2,
    Text = 3,
    Blob = 4,
    /// In the form that the service sends it in, of the type that its column says.
    Sent = 5,
}

/// A result as far as it was read.
///
/// ```text
/// number of columns, then each column's name and type; each row: a mark, then each value's kind and bytes; an end mark
/// ```
/// Bytes have their number in front, so that no two results are the same text.
pub(super) struct Reading {
    context: Context,
    rows_left: usize,
    bytes_left: usize,
}

const ROW: u8 = 0xff;
const END: u8 = 0xfe;

impl Reading {
    /// Of a result with these columns: names and types.
    pub fn of<'a>(columns: impl ExactSizeIterator<Item = (&'a str, &'a str)>) -> Result<Self, Error> {
        let mut context = Context::new(&SHA256);
        context.update(&(columns.len() as u64).to_be_bytes());
        let mut reading = Self { context, rows_left: MOST_ROWS, bytes_left: MOST_BYTES };
        for (name, kind) in columns {
            reading.bytes(name.as_bytes())?;
            reading.bytes(kind.as_bytes())?;
        }
        Ok(reading)
    }

    /// A row begins.
    pub fn row(&mut self) -> Result<(), Error> {
        self.rows_left = self.rows_left.checked_sub(1).ok_or(Error::TooLarge { most: MOST_ROWS, what: "rows" })?;
        self.context.update(&[ROW]);
        Ok(())
    }

    /// The next value of the row.
    pub fn value(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), Error> {
        self.context.update(&[kind as u8]);
        self.bytes(bytes)
    }

    /// Nothing follows.
    pub fn end(mut self) -> ResultDigest {
        self.context.update(&[END]);
        let mut digest = [0; 32];
        digest.copy_from_slice(self.context.finish().as_ref());
        ResultDigest(digest)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let left = self.bytes_left.checked_sub(bytes.len());
        self.bytes_left = left.ok_or(Error::TooLarge { most: MOST_BYTES, what: "bytes" })?;
        self.context.update(&(bytes.len() as u64).to_be_bytes());
        self.context.update(bytes);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(columns: &[(&str, &str)], rows: &[&[(Kind, &[u8])]]) -> ResultDigest {
        let mut reading = Reading::of(columns.iter().copied()).unwrap();
        for row in rows {
            reading.row().unwrap();
            row.iter().for_each(|(kind, bytes)| reading.value(*kind, bytes).unwrap());
        }
        reading.end()
    }

    #[test]
    fn no_two_results_are_the_same_text() {
        use Kind::{Blob, Integer, Null, Text};
        let (a, ab) = ([("a", "")], [("a", ""), ("b", "")]);
        let results = [
            of(&a, &[]),
            of(&ab, &[]),
            of(&[("ab", "")], &[]),
            of(&[("a", "b")], &[]),
            of(&a, &[&[(Null, b"")]]),
            of(&a, &[&[(Text, b"")]]),
            of(&a, &[&[(Blob, b"")]]),
            of(&a, &[&[(Text, b"1")]]),
            of(&a, &[&[(Integer, b"1")]]),
            of(&a, &[&[(Text, b"1")], &[(Text, b"2")]]),
            of(&a, &[&[(Text, b"2")], &[(Text, b"1")]]),
            of(&a, &[&[(Text, b"12")]]),
            of(&ab, &[&[(Text, b"1"), (Text, b"23")]]),
            of(&ab, &[&[(Text, b"12"), (Text, b"3")]]),
        ];
        for (n, one) in results.iter().enumerate() {
            assert!(!results.iter().skip(n + 1).any(|other| other == one), "{n}");
        }
        assert_eq!(of(&a, &[&[(Text, b"1")]]), of(&a, &[&[(Text, b"1")]]));
    }

    #[test]
    fn a_result_has_bounds() {
        let mut reading = Reading::of([("a", "")].into_iter()).unwrap();
        for _ in 0..MOST_ROWS {
            reading.row().unwrap();
        }
        assert_eq!(reading.row().unwrap_err().to_string(), "the result has more than 10000 rows");
        let mut reading = Reading::of([("a", "")].into_iter()).unwrap();
        reading.value(Kind::Blob, &vec![0; MOST_BYTES - 1]).unwrap();
        let error = reading.value(Kind::Blob, &[0]).unwrap_err();
        assert_eq!(error.to_string(), "the result has more than 8388608 bytes");
    }
}
