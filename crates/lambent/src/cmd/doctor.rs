//! `lambent doctor`: what this machine gives a node and what it does not, each with what to do about it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Result, bail};
use lambent_fleet::{Fleet, FleetConfig};
use lambent_sandbox::Barrier;
use serde::Serialize;
use serde_json::json;

use super::output;
use crate::cli::DoctorArgs;
use crate::config::{self, Config, Env, SandboxKind, Use};
use crate::node;

/// One finding.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was looked at.
    subject: String,
    /// Whether a node can start and run functions with it.
    verdict: Verdict,
    /// What was found, or what it stops.
    found: String,
    /// What to do.
    advice: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    /// A node runs, with less.
    Missing,
    /// A node does not run.
    Fatal,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Missing => "missing",
            Self::Fatal => "FATAL",
        }
    }
}

/// Looks at everything; an error when a node could not run as configured.
pub async fn run(args: &DoctorArgs, env: &dyn Env, json: bool) -> Result<()> {
    let config = config::load(&args.node, env, Use::Serve)?.config;
    let mut findings = Vec::new();
    findings.extend(barriers(&config).await);
    findings.push(interpreters(&config).await);
    findings.push(data_dir(&config.data_dir));
    findings.push(port("api.listen", config.api.listen));
    findings.push(port("urls.listen", config.urls.listen));
    print(&findings, json)?;
    let fatal = findings.iter().filter(|finding| finding.verdict == Verdict::Fatal).count();
    if fatal > 0 { bail!("a node cannot run like this: {fatal} fatal findings") } else { Ok(()) }
}

async fn barriers(config: &Config) -> Vec<Finding> {
    let chosen = match node::sandbox::choose(config) {
        Ok(chosen) => chosen,
        Err(error) => return vec![fatal("sandbox", format!("{error:#}"), None)],
    };
    let sandbox = chosen.sandbox.clone();
    // Trying the barriers makes processes and blocks.
    let tried = tokio::task::spawn_blocking(move || sandbox.barriers()).await.unwrap_or_default();
    let isolated = config.sandbox.kind == SandboxKind::Cell;
    tried.into_iter().map(|barrier| finding(barrier, isolated)).collect()
}

fn finding(barrier: Barrier, isolated: bool) -> Finding {
    let verdict = match (&barrier.missing, barrier.required && isolated) {
        (None, _) => Verdict::Good,
        (Some(_), true) => Verdict::Fatal,
        (Some(_), false) => Verdict::Missing,
    };
    let found = match &barrier.missing {
        None => format!("stops {}", barrier.stops),
        Some(why) => format!("does not stop {}: {why}", barrier.stops),
    };
    Finding {
        subject: barrier.name.to_owned(),
        verdict,
        found,
        advice: barrier.advice.filter(|_| verdict != Verdict::Good),
    }
}

/// What the fleet finds with the same search as a node does.
async fn interpreters(config: &Config) -> Finding {
    let found = match tempfile::tempdir() {
        Ok(dir) => runtimes(config, dir.path()).await,
        Err(error) => Err(error.into()),
    };
    match found {
        Ok(found) if found.iter().any(|runtime| !runtime.starts_with("provided")) => {
            Finding { subject: "runtimes".to_owned(), verdict: Verdict::Good, found: found.join(", "), advice: None }
        }
        Ok(found) => Finding {
            subject: "runtimes".to_owned(),
            verdict: Verdict::Missing,
            found: format!("only {}", found.join(", ")),
            advice: Some("install python3 or Node.js where PATH finds it".to_owned()),
        },
        Err(error) => fatal("runtimes", format!("{error:#}"), None),
    }
}

async fn runtimes(config: &Config, scratch: &Path) -> Result<Vec<String>> {
    let chosen = node::sandbox::choose(&Config { data_dir: scratch.to_owned(), ..config.clone() })?;
    let store = node::open_store(&scratch.join("store")).await?;
    let clock = std::sync::Arc::new(lambent_model::SystemClock);
    let fleet = Fleet::new(
        FleetConfig::new(scratch.join("fleet")),
        chosen.sandbox,
        store.blobs.clone(),
        store.logs.clone(),
        clock,
    );
    let fleet = fleet.await?;
    fleet.ready().await;
    let found = fleet.runtimes().iter().map(ToString::to_string).collect();
    fleet.shutdown(std::time::Duration::ZERO).await;
    Ok(found)
}

/// Whether a node could keep its state there; nothing is made.
fn data_dir(dir: &Path) -> Finding {
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    match tempfile::tempfile_in(existing) {
        Ok(_) => Finding {
            subject: "data_dir".to_owned(),
            verdict: Verdict::Good,
            found: format!("{} can be written", dir.display()),
            advice: None,
        },
        Err(error) => fatal(
            "data_dir",
            format!("{}: {error}", dir.display()),
            Some("name another one with --data-dir".to_owned()),
        ),
    }
}

fn port(key: &str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding {
            subject: key.to_owned(),
            verdict: Verdict::Good,
            found: format!("{address} is free"),
            advice: None,
        },
        Err(error) => fatal(
            key,
            format!("{address}: {error}"),
            Some("stop what listens there, or choose another; port 0 picks a free one".to_owned()),
        ),
    }
}

fn fatal(subject: &str, found: String, advice: Option<String>) -> Finding {
    Finding { subject: subject.to_owned(), verdict: Verdict::Fatal, found, advice }
}

fn print(findings: &[Finding], json: bool) -> Result<()> {
    if json {
        return output::json(&json!({"findings": findings}));
    }
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    for finding in findings {
        output::line(&format!("{:8} {:width$}  {}", finding.verdict.word(), finding.subject, finding.found))?;
        if let Some(advice) = &finding.advice {
            output::line(&format!("{:8} {:width$}  -> {advice}", "", ""))?;
        }
    }
    Ok(())
}
