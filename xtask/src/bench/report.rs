//! Medians and spread, for people and for machines.

use serde_json::json;

/// One metric of one case, all its runs.
pub struct Metric {
    /// Which function.
    pub case: String,
    /// What was measured.
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// Lambent's runs.
    pub lambent: Vec<f64>,
    /// The peer's runs; empty where it cannot take part.
    pub peer: Vec<f64>,
}

/// Prints all metrics of a bench.
pub fn print(bench: &str, peer_name: &str, metrics: &[Metric], json: bool) {
    if json {
        for metric in metrics {
            println!("{}", line(bench, peer_name, metric));
        }
        return;
    }
    println!("{bench}: Lambent beside {peer_name}; medians (least to most) of {} runs", runs(metrics));
    println!("{:22} {:22} {:>6} {:>32} {:>32} {:>7}", "CASE", "METRIC", "UNIT", "LAMBENT", peer_name, "RATIO");
    for metric in metrics {
        let ratio = ratio(metric).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let (lambent, peer) = (shown(&metric.lambent), shown(&metric.peer));
        println!("{:22} {:22} {:>6} {lambent:>32} {peer:>32} {ratio:>7}", metric.case, metric.name, metric.unit);
    }
}

fn line(bench: &str, peer_name: &str, metric: &Metric) -> serde_json::Value {
    json!({
        "bench": bench,
        "case": metric.case,
        "metric": metric.name,
        "unit": metric.unit,
        "lambent": median(&metric.lambent),
        "peer": median(&metric.peer),
        "peer_name": peer_name,
        "ratio": ratio(metric),
        "runs": metric.lambent.len(),
    })
}

fn runs(metrics: &[Metric]) -> usize {
    metrics.first().map_or(0, |metric| metric.lambent.len())
}

/// Lambent's median by the peer's.
fn ratio(metric: &Metric) -> Option<f64> {
    Some(median(&metric.lambent)? / median(&metric.peer)?)
}

fn shown(values: &[f64]) -> String {
    let sorted = sorted(values);
    match (median(values), sorted.first(), sorted.last()) {
        (Some(median), Some(least), Some(most)) => format!("{median:.3} ({least:.3} to {most:.3})"),
        _ => "-".to_owned(),
    }
}

/// The value that so many of a hundred do not exceed, by nearest rank; 0 of nothing.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let rank = (values.len() * percent).div_ceil(100).saturating_sub(1);
    sorted(values).get(rank).copied().unwrap_or(0.0)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The middle value; of an even number the lower of the two in the middle.
fn median(values: &[f64]) -> Option<f64> {
    sorted(values).get(values.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_every_key() {
        let metric =
            Metric { case: "c".into(), name: "p50".into(), unit: "ms", lambent: vec![3.0, 1.0, 2.0], peer: vec![4.0] };
        let expected = r#"{"bench":"warm","case":"c","metric":"p50","unit":"ms","lambent":2.0,"peer":4.0,"peer_name":"p","ratio":0.5,"runs":3}"#;
        assert_eq!(line("warm", "p", &metric).to_string(), expected);
        let alone = Metric { peer: Vec::new(), ..metric };
        assert!(line("warm", "p", &alone).get("ratio").unwrap().is_null());
    }
}
