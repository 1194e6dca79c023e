//! Rates and percentiles from two readings of `/metrics`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What one function's counters said.
#[derive(Debug, Clone, Default, PartialEq)]
struct Counters {
    calls: f64,
    errors: f64,
    cold: f64,
    /// Calls at most so long, by that length in seconds.
    within: Vec<(f64, f64)>,
}

/// A reading.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    at: f64,
    functions: BTreeMap<String, Counters>,
}

/// What happened between two readings, to one function.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionRates {
    function: String,
    calls: f64,
    errors: f64,
    cold: f64,
    p50: Option<f64>,
    p99: Option<f64>,
}

impl Sample {
    /// Reads Prometheus text, taken so many seconds after the node's start.
    pub fn read(metrics: &str, at: f64) -> Self {
        let mut functions: BTreeMap<String, Counters> = BTreeMap::new();
        for (name, labels, value) in metrics.lines().filter_map(parse) {
            let Some(function) = label(labels, "function") else { continue };
            match name {
                "lambent_invocations_total" => {
                    let counters = functions.entry(function.to_owned()).or_default();
                    counters.calls += value;
                    if label(labels, "outcome") != Some("success") {
                        counters.errors += value;
                    }
                }
                "lambent_cold_starts_total" => functions.entry(function.to_owned()).or_default().cold += value,
                "lambent_invocation_duration_seconds_bucket" => {
                    let bound = label(labels, "le").and_then(|le| le.replace("+Inf", "inf").parse().ok());
                    let within = &mut functions.entry(function.to_owned()).or_default().within;
                    within.extend(bound.map(|bound: f64| (bound, value)));
                }
                _ => {}
            }
        }
        Self { at, functions }
    }

    /// What happened since `before`, the busiest function first; functions that nobody called are left out.
    pub fn since(&self, before: &Self) -> Vec<FunctionRates> {
        // A node that was started anew counts from zero.
        let none = Self::default();
        let before = if before.at <= self.at { before } else { &none };
        let seconds = (self.at - before.at).max(0.001);
        let idle = Counters::default();
        let mut rates: Vec<FunctionRates> = self
            .functions
            .iter()
            .map(|(function, now)| {
                let then = before.functions.get(function).unwrap_or(&idle);
                let buckets: Vec<(f64, f64)> = now
                    .within
                    .iter()
                    .map(|(bound, count)| {
                        let earlier = then.within.iter().find(|(other, _)| other.total_cmp(bound).is_eq());
                        (*bound, count - earlier.map_or(0.0, |(_, count)| *count))
                    })
                    .collect();
                FunctionRates {
                    function: function.clone(),
                    calls: (now.calls - then.calls) / seconds,
                    errors: (now.errors - then.errors) / seconds,
                    cold: (now.cold - then.cold) / seconds,
                    p50: quantile(&buckets, 0.5),
                    p99: quantile(&buckets, 0.99),
                }
            })
            .filter(|rates| rates.calls > 0.0)
            .collect();
        rates.sort_by(|a, b| b.calls.total_cmp(&a.calls));
        rates
    }
}

impl FunctionRates {
    /// As a row of a table.
    pub fn row(&self) -> Vec<String> {
        let millis = |at: Option<f64>| at.map_or_else(|| "-".to_owned(), |at| format!("{:.2} ms", at * 1000.0));
        let rate = |rate: f64| format!("{rate:.1}");
        let (p50, p99) = (millis(self.p50), millis(self.p99));
        vec![self.function.clone(), rate(self.calls), rate(self.errors), rate(self.cold), p50, p99]
    }

    /// As numbers.
    pub fn json(&self) -> Value {
        let millis = |at: Option<f64>| at.map(|at| at * 1000.0);
        json!({
            "function": self.function,
            "calls_per_second": self.calls,
            "errors_per_second": self.errors,
            "cold_starts_per_second": self.cold,
            "p50_ms": millis(self.p50),
            "p99_ms": millis(self.p99),
        })
    }
}

/// Name, labels and value of a line.
fn parse(line: &str) -> Option<(&str, &str, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{')?;
    Some((name, labels.strip_suffix('}')?, value.parse().ok()?))
}

/// A label's value. Names of functions hold nothing that would have to be escaped.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

/// Where a share of the calls lies, in seconds; within a bucket they are taken to be spread evenly.
fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let all = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let (mut below, mut counted) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= all * share {
            if bound.is_infinite() {
                return Some(below);
            }
            return Some(below + (bound - below) * (all * share - counted) / (count - counted));
        }
        (below, counted) = (*bound, *count);
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(calls: u32, slow: u32) -> String {
        format!(
            "# TYPE lambent_invocations_total counter\n\
             lambent_invocations_total{{function=\"f\",outcome=\"success\"}} {calls}\n\
             lambent_invocations_total{{function=\"f\",outcome=\"crashed\"}} 2\n\
             lambent_invocation_duration_seconds_bucket{{function=\"f\",le=\"0.001\"}} {}\n\
             lambent_invocation_duration_seconds_bucket{{function=\"f\",le=\"0.01\"}} {calls}\n\
             lambent_invocation_duration_seconds_bucket{{function=\"f\",le=\"+Inf\"}} {calls}\n",
            calls - slow
        )
    }

    #[test]
    fn rates_are_those_between_two_looks() {
        let (first, second) = (Sample::read(&text(100, 0), 10.0), Sample::read(&text(300, 100), 20.0));
        let [rates] = second.since(&first).try_into().unwrap();
        assert_eq!((rates.calls, rates.errors), (20.0, 0.0));
        // Half of the two hundred were within a millisecond.
        assert!((rates.p50.unwrap() - 0.001).abs() < 1e-9, "{rates:?}");
        assert!(rates.p99.unwrap() > 0.009);
        assert!(second.since(&second).is_empty(), "nobody called");
        assert_eq!(first.since(&Sample::default()).len(), 1, "the first look counts since the start");
        assert_eq!(first.since(&second).len(), 1, "a node that was started anew counts from zero");
    }
}
