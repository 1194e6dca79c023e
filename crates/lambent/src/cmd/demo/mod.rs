//! `lambent demo`: a node, the example functions on it, what they cost, and how to go on.

mod examples;
mod measure;

use anyhow::Result;
use lambent_model::function::Runtime;
use serde::Serialize;
use serde_json::json;

use super::{output, serve};
use crate::cli::DemoArgs;
use crate::client::credentials::Credentials;
use crate::client::{Client, NewFunction};
use crate::config::{self, Config, Env, SandboxKind, Use};
use crate::node::{self, Node, Signals, Telemetry};
use crate::package::Manifest;
use examples::Example;
use measure::Figures;

/// What became of one example.
#[derive(Serialize)]
struct Row {
    function: &'static str,
    runtime: Option<String>,
    url: Option<String>,
    #[serde(flatten)]
    figures: Option<Figures>,
    /// Why it was not run.
    skipped: Option<String>,
}

/// Runs the demo; fails where an example that could run did not.
pub async fn run(args: &DemoArgs, env: &dyn Env, json: bool) -> Result<()> {
    let mut config = config::load(&args.node, env, Use::Demo)?.config;
    let telemetry = Telemetry::install(&config).await?;
    let mut signals = Signals::catch()?;
    without_isolation(&mut config).await;
    let node = Node::start(&config, env, &telemetry).await?;
    say(json, &format!("ready {}", node.endpoint))?;
    let rows = tokio::select! {
        rows = rows(args, &config, &node, env, json) => rows,
        signal = signals.next() => Err(anyhow::anyhow!("{signal}")),
    };
    let shown = rows.and_then(|rows| {
        print(&rows, &node, &config, json)?;
        let failed =
            rows.iter().filter(|row| row.skipped.as_ref().is_some_and(|why| why.starts_with("FAILED"))).count();
        if failed > 0 { anyhow::bail!("{failed} of the examples failed") } else { Ok(()) }
    });
    if args.exit || shown.is_err() {
        node.stop(config.shutdown.grace).await;
        telemetry.shutdown().await;
        return shown;
    }
    serve::serve_on(node, telemetry, signals, &config).await;
    Ok(())
}

/// The demo runs only what it brought along, so it may go on where a barrier is missing; it says so, and `serve` would not.
async fn without_isolation(config: &mut Config) {
    if config.sandbox.kind == SandboxKind::Sim {
        return;
    }
    let missing = match node::sandbox::choose(config) {
        Err(error) => Some(format!("{error:#}")),
        Ok(chosen) => {
            let tried = tokio::task::spawn_blocking(move || chosen.sandbox.barriers()).await.unwrap_or_default();
            let first = tried.into_iter().find(|barrier| barrier.required && barrier.missing.is_some());
            first.map(|barrier| format!("{}: {}", barrier.name, barrier.missing.unwrap_or_default()))
        }
    };
    if let Some(missing) = missing {
        eprintln!("isolation: skipped, this host does not give it ({missing}); `lambent doctor` says what to do.");
        eprintln!("The demo's functions run WITHOUT ISOLATION; `lambent serve` refuses to.");
        config.sandbox.kind = SandboxKind::Sim;
    }
}

async fn rows(args: &DemoArgs, config: &Config, node: &Node, env: &dyn Env, json: bool) -> Result<Vec<Row>> {
    let client = Client::with(node.endpoint.clone(), config.region.to_string(), Credentials::from(&node.home))?;
    node.fleet().ready().await;
    let runtimes = node.fleet().runtimes();
    let path = env.get("PATH");
    let mut rows = Vec::new();
    for example in examples::ALL {
        let mut row = Row { function: example.name, runtime: None, url: None, figures: None, skipped: None };
        let manifest = example.manifest()?;
        let runtime = manifest.runtime.as_deref().and_then(|wanted| available(wanted, &runtimes));
        match (example.missing(path.as_deref()), runtime) {
            (Some(program), _) => row.skipped = Some(format!("{program} is not on this machine")),
            (None, None) => row.skipped = Some(format!("no {} on this machine", manifest.runtime.unwrap_or_default())),
            (None, Some(runtime)) => {
                row.runtime = Some(runtime.clone());
                say(json, &format!("{}: deploying and calling", example.name))?;
                match one(example, manifest, runtime, &client, config, args.calls).await {
                    Ok((url, figures)) => (row.url, row.figures) = (url, Some(figures)),
                    Err(error) => row.skipped = Some(format!("FAILED: {error:#}")),
                }
            }
        }
        if let Some(why) = &row.skipped {
            say(json, &format!("{}: skipped, {why}", example.name))?;
        }
        rows.push(row);
    }
    Ok(rows)
}

async fn one(
    example: &Example,
    manifest: Manifest,
    runtime: String,
    client: &Client,
    config: &Config,
    calls: u32,
) -> Result<(Option<String>, Figures)> {
    let new = NewFunction {
        name: example.name.to_owned(),
        runtime,
        handler: manifest.handler.unwrap_or_default(),
        zip: example.package(&config.data_dir.join("demo")).await?,
        memory_mib: manifest.memory_mib,
        timeout_secs: manifest.timeout_secs,
        environment: manifest.environment,
        publish: false,
    };
    client.deploy(&new).await?;
    let url = if manifest.url { Some(client.public_url(&new.name).await?) } else { None };
    Ok((url, measure::measure(client, &new.name, calls).await?))
}

/// The runtime asked for, else the newest of the same language that this machine has.
fn available(wanted: &str, runtimes: &[Runtime]) -> Option<String> {
    let wanted = Runtime::try_from(wanted.to_owned()).ok()?;
    if matches!(wanted, Runtime::Provided(_)) || runtimes.contains(&wanted) {
        return Some(wanted.to_string());
    }
    let same = |runtime: &&Runtime| std::mem::discriminant(*runtime) == std::mem::discriminant(&wanted);
    runtimes.iter().filter(same).max().map(ToString::to_string)
}

fn say(json: bool, text: &str) -> Result<()> {
    if json { Ok(()) } else { output::line(text) }
}

fn print(rows: &[Row], node: &Node, config: &Config, json: bool) -> Result<()> {
    if json {
        return output::json(&json!({"endpoint": node.endpoint, "isolation": config.sandbox.kind, "functions": rows}));
    }
    let figure = |row: &Row, read: fn(&Figures) -> String| row.figures.as_ref().map_or_else(|| "-".to_owned(), read);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.function.to_owned(),
                row.runtime.clone().unwrap_or_else(|| "-".to_owned()),
                figure(row, |figures| format!("{:.0} ms", figures.cold_start_ms)),
                figure(row, |figures| format!("{:.2} ms", figures.warm_p50_ms)),
                figure(row, |figures| format!("{:.2} ms", figures.warm_p99_ms)),
                figure(row, |figures| format!("{:.0}", figures.calls_per_second)),
                figure(row, |figures| figures.memory_mib.map_or_else(|| "-".to_owned(), |mib| format!("{mib} MiB"))),
            ]
        })
        .collect();
    output::line("")?;
    output::table(&["FUNCTION", "RUNTIME", "COLD START", "WARM P50", "WARM P99", "CALLS/S", "MEMORY"], &cells)?;
    output::line(&how_to_go_on(rows, node, config))
}

fn how_to_go_on(rows: &[Row], node: &Node, config: &Config) -> String {
    let dir = config.data_dir.display();
    let ran = rows.iter().find(|row| row.figures.is_some());
    let name = ran.map_or("FUNCTION", |row| row.function);
    // `cargo run` puts it on nobody's PATH.
    let program = std::env::current_exe().unwrap_or_else(|_| "lambent".into());
    let url = ran.and_then(|row| row.url.as_deref()).map(|url| format!("  curl -s {url}\n")).unwrap_or_default();
    format!(
        "
The node answers at {endpoint}. In another shell:

  eval \"$({program} credentials --data-dir {dir} --format env)\"
  aws lambda list-functions
  echo '{{\"name\":\"you\"}}' | aws lambda invoke --function-name {name} --payload fileb:///dev/stdin /dev/stdout
  aws logs filter-log-events --log-group-name /aws/lambda/{name} --query 'events[].message' --output text
{url}
An AWS CLI before 1.29 or 2.13 must be told --endpoint-url \"$AWS_ENDPOINT_URL\" each time.
Without one: lambent invoke {name} --payload '{{}}', lambent logs {name}, lambent functions.",
        program = program.display(),
        endpoint = node.endpoint,
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn another_version_of_the_same_language_will_do() {
        let runtimes = [Runtime::Python { minor: 9 }, Runtime::Python { minor: 12 }];
        assert_eq!(available("python3.9", &runtimes).unwrap(), "python3.9");
        assert_eq!(available("python3.11", &runtimes).unwrap(), "python3.12");
        assert_eq!(available("nodejs20.x", &runtimes), None);
        assert_eq!(available("provided.al2023", &[]).unwrap(), "provided.al2023");
    }
}
