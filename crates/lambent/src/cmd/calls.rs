//! `lambent calls`: what was learned of calls between functions.

use anyhow::Result;
use serde_json::Value;

use super::output;
use crate::cli::CallsArgs;
use crate::client::Client;
use crate::config::Env;

/// Prints it.
pub async fn run(args: CallsArgs, env: &dyn Env, json: bool) -> Result<()> {
    let known = Client::new(&args.client, env)?.calls(args.function.as_deref()).await?;
    if json {
        return output::json(&Value::Array(known));
    }
    let (needs, durations): (Vec<_>, Vec<_>) = known.iter().partition(|known| known.get("callee").is_some());
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let name = |of: &Value, member: &str| text(of, member).rsplit(':').next().unwrap_or_default().to_owned();
    let millis = |of: &Value, name: &str| {
        of.get(name).and_then(Value::as_f64).map_or_else(|| "-".to_owned(), |millis| format!("{millis:.1} ms"))
    };
    let count = |of: &Value| {
        let count = of.get("count").and_then(Value::as_u64).unwrap_or_default();
        let is_used = of.get("is_used") == Some(&Value::Bool(true));
        if is_used { count.to_string() } else { format!("{count} (too few)") }
    };
    let need = |of: &&Value| {
        let caller = format!("{}:{}", name(of, "function"), text(of, "version"));
        let of = *of;
        vec![
            caller,
            text(of, "site"),
            name(of, "callee"),
            millis(of, "expected_ms"),
            millis(of, "median_ms"),
            count(of),
        ]
    };
    let duration = |of: &&Value| {
        let function = format!("{}:{}", name(of, "function"), text(of, "version"));
        vec![function, millis(of, "expected_ms"), millis(of, "median_ms"), count(of)]
    };
    let rows: Vec<_> = needs.iter().map(need).collect();
    output::table(&["CALLER", "SITE", "CALLS", "NEEDED AFTER", "MEDIAN", "NOTED"], &rows)?;
    output::line("")?;
    let rows: Vec<_> = durations.iter().map(duration).collect();
    output::table(&["FUNCTION", "RUNS FOR", "MEDIAN", "NOTED"], &rows)
}
