//! The stages of a call as bars under each other.

use std::fmt::Write as _;

/// Columns of the bars.
const WIDTH: f64 = 50.0;

/// The stages in order, each in milliseconds, and the rest of `whole`: what the network and the client took. One line each.
pub fn draw(stages: &[(String, f64)], whole: f64) -> String {
    let at_node: f64 = stages.iter().map(|(_, took)| took).sum();
    let mut text = String::new();
    let mut line = |name: &str, took: f64, from: f64| {
        let column = |at: f64| ((at / whole.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0) * WIDTH).round();
        let (begin, end) = (column(from), column(from + took));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the width")]
        let (before, bar) = (begin as usize, ((end - begin) as usize).max(1));
        let _ = writeln!(text, "{name:15} {took:>11.3} ms  {}{}", " ".repeat(before), "█".repeat(bar));
    };
    let mut from = 0.0;
    for (name, took) in stages {
        line(name, *took, from);
        from += took;
    }
    if stages.is_empty() {
        text.push_str("the node does not say where the time went: it is no Lambent, or an older one\n");
    } else {
        line("network, client", (whole - at_node).max(0.0), from);
    }
    let _ = writeln!(text, "{:15} {whole:>11.3} ms", "whole");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_follow_each_other() {
        let stages = [("accept".to_owned(), 2.0), ("handler".to_owned(), 6.0)];
        let drawn = draw(&stages, 10.0);
        let bars: Vec<(usize, usize)> = drawn
            .lines()
            .take(3)
            .map(|line| (line.chars().position(|c| c == '█').unwrap_or(0), line.matches('█').count()))
            .collect();
        let first = bars.first().map_or(0, |(at, _)| *at);
        assert_eq!(
            bars.iter().map(|(at, long)| (at - first, *long)).collect::<Vec<_>>(),
            [(0, 10), (10, 30), (40, 10)]
        );
        assert!(draw(&[], 1.0).contains("does not say"));
    }
}
