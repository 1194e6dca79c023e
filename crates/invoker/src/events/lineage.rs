//! Loops, found in the trace header: `Lineage=1:HASH:COUNT|HASH:COUNT…`, as AWS has it there.
//!
//! Each function that an event passes is in it with the number of times that the chain has come back to it. The header reaches
//! the function's environment, the SDKs send it on with what the function calls, and so it comes back when the chain does. The leading
//! A synchronous call adds to it as well, where it is part of such a chain; one that is not begins none. The leading
//! `1` is the format; a lineage of another is begun anew.

use aws_lc_rs::digest::{SHA256, digest};
use lambent_model::FunctionArn;

const FIELD: &str = "Lineage=";
const FORMAT: &str = "1:";
/// Functions that are remembered of a chain; of a longer one those passed first are forgotten.
const MOST: usize = 32;

/// Whether a call is part of an event's chain.
pub(crate) fn is_in(trace: &str) -> bool {
    trace.contains(FIELD)
}

/// The header for a run of `function`, and how often the chain has come to it, this time included.
pub(crate) fn enter(trace: Option<&str>, function: &FunctionArn) -> (String, u32) {
    let trace = trace.unwrap_or_default();
    let (mut others, mut passed) = (Vec::new(), Vec::new());
    for field in trace.split(';').filter(|field| !field.is_empty()) {
        match field.strip_prefix(FIELD) {
            Some(lineage) => passed.extend(lineage.strip_prefix(FORMAT).into_iter().flat_map(read)),
            None => others.push(field.to_owned()),
        }
    }
    let hash = hash(function);
    let visits = passed.iter().position(|(known, _)| *known == hash).map_or(0, |place| passed.remove(place).1 + 1);
    passed.push((hash, visits));
    let skipped = passed.len().saturating_sub(MOST);
    let lineage: Vec<String> = passed.iter().skip(skipped).map(|(hash, count)| format!("{hash}:{count}")).collect();
    others.push(format!("{FIELD}{FORMAT}{}", lineage.join("|")));
    (others.join(";"), visits.saturating_add(1))
}

fn read(lineage: &str) -> impl Iterator<Item = (String, u32)> {
    lineage.split('|').filter_map(|entry| {
        let (hash, count) = entry.split_once(':')?;
        Some((hash.to_owned(), count.parse().ok().filter(|count| *count < u32::MAX)?))
    })
}

fn hash(function: &FunctionArn) -> String {
    let digest = digest(&SHA256, function.to_string().as_bytes());
    hex::encode(digest.as_ref().get(..4).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn function(name: &str) -> FunctionArn {
        FunctionArn { region: Default::default(), account: Default::default(), name: name.parse().unwrap() }
    }

    #[test]
    fn a_chain_is_counted_function_by_function() {
        let (trace, visits) = enter(Some("Root=1-a-b;Sampled=0"), &function("f"));
        assert!(trace.starts_with("Root=1-a-b;Sampled=0;Lineage=1:") && trace.ends_with(":0"), "{trace}");
        assert_eq!(visits, 1);
        let (trace, visits) = enter(Some(&trace), &function("g"));
        assert_eq!(visits, 1);
        let (trace, visits) = enter(Some(&trace), &function("f"));
        assert_eq!(visits, 2);
        assert_eq!((trace.matches("Lineage=").count(), trace.matches(':').count()), (1, 3), "{trace}");
        assert!(trace.ends_with(":1"), "{trace}");
    }

    #[test]
    fn long_chains_and_nonsense_stay_small() {
        let mut trace = "Root=1-a-b;Lineage=2:x:9|||".to_owned();
        for n in 0..100 {
            trace = enter(Some(&trace), &function(&format!("f{n}"))).0;
        }
        assert_eq!(trace.matches('|').count(), MOST - 1, "{trace}");
        assert_eq!(enter(Some("Lineage=1:x:99999999999|y"), &function("f")).1, 1);
        assert_eq!(enter(None, &function("f")).1, 1);
    }
}
