//! Printing: whole lines to standard output, and an end without fuss where nobody reads any more.

use std::io::Write;

use anyhow::{Context, Result};

/// Prints bytes as they are.
pub fn bytes(content: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(content).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Prints one line.
pub fn line(text: &str) -> Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints a JSON value on one line.
pub fn json(value: &serde_json::Value) -> Result<()> {
    line(&value.to_string())
}

/// Prints rows under a head, columns as wide as they must be.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> Result<()> {
    line(&layout(head, rows))
}

/// Rows under a head; columns of figures stand to the right.
fn layout(head: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let width = |column: usize, name: &str| cells(column).map(|cell| cell.chars().count()).chain([name.len()]).max();
    let widths: Vec<usize> = head.iter().enumerate().map(|(i, name)| width(i, name).unwrap_or_default()).collect();
    let figures: Vec<bool> =
        (0..head.len()).map(|i| !rows.is_empty() && cells(i).all(|cell| is_figure(cell))).collect();
    let first = head.iter().map(|name| (*name).to_owned()).collect();
    let lines = std::iter::once(&first).chain(rows).map(|row: &Vec<String>| {
        let columns = row.iter().zip(widths.iter().zip(&figures));
        let padded = columns
            .map(|(cell, (width, right))| if *right { format!("{cell:>width$}") } else { format!("{cell:width$}") });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn is_figure(cell: &str) -> bool {
    cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "10 ms".to_owned()], vec!["longer".to_owned(), "-".to_owned()]];
        assert_eq!(layout(&["NAME", "P50"], &rows), "NAME      P50\na       10 ms\nlonger      -");
        assert_eq!(layout(&["NAME"], &[]), "NAME");
    }
}
