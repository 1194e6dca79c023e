//! The sandbox that is configured, and how functions inside it reach the configured AWS endpoint.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use lambent_sandbox::Sandbox;
use lambent_sandbox::cell::{self, Cells};
use lambent_sandbox::egress::{self, Hole};
use lambent_sandbox::sim::Sim;

use crate::config::{Config, SandboxKind};

/// A back end, and what its choice means for functions.
pub struct Chosen {
    /// Makes cells.
    pub sandbox: Arc<dyn Sandbox>,
    /// The AWS endpoint as functions reach it.
    pub aws_endpoint_url: Option<String>,
}

/// Builds the back end that is configured.
pub fn choose(config: &Config) -> Result<Chosen> {
    match config.sandbox.kind {
        SandboxKind::Cell => cells(config),
        SandboxKind::Sim => {
            tracing::warn!(
                "sandbox.kind = sim: functions run WITHOUT ISOLATION, as this user, with this host's files and network"
            );
            let sandbox = Arc::new(Sim::new(config.data_dir.join("sandbox")));
            Ok(Chosen { sandbox, aws_endpoint_url: config.aws.endpoint.clone() })
        }
    }
}

/// Cells never reach this host's loopback; where the AWS endpoint is there, it is shown to them at their gateway.
fn cells(config: &Config) -> Result<Chosen> {
    let mut egress = egress::Config::default();
    let aws_endpoint_url = match &config.aws.endpoint {
        None => None,
        Some(url) => {
            let (hole, shown) = way_out(url)?;
            egress.holes.push(hole);
            Some(shown)
        }
    };
    let settings = cell::Config { egress: Arc::new(egress), ..cell::Config::new(config.data_dir.join("sandbox")) };
    let cells =
        Cells::new(settings).context("cannot set up the sandbox; `lambent doctor` says what this host lacks")?;
    Ok(Chosen { sandbox: Arc::new(cells), aws_endpoint_url })
}

/// The hole that leads to `url`, and the URL by which the inside reaches it.
fn way_out(url: &str) -> Result<(Hole, String)> {
    let parsed: http::Uri = url.parse().with_context(|| format!("aws.endpoint = {url:?} is no URL"))?;
    let Some(host) = parsed.host() else { bail!("aws.endpoint = {url:?} names no host") };
    let port = parsed.port_u16().unwrap_or(if parsed.scheme_str() == Some("https") { 443 } else { 80 });
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut found = (bare, port).to_socket_addrs().with_context(|| format!("aws.endpoint = {url:?}: unknown host"))?;
    let address: SocketAddr = found.next().with_context(|| format!("aws.endpoint = {url:?}: unknown host"))?;
    if !address.ip().is_loopback() {
        return Ok((Hole { inside: address, outside: address }, url.to_owned()));
    }
    let hole = Hole::at_gateway(address);
    let authority = parsed.authority().map(ToString::to_string).unwrap_or_default();
    Ok((hole, url.replacen(&authority, &hole.inside.to_string(), 1)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_local_endpoint_is_shown_at_the_gateway() {
        let (hole, shown) = way_out("http://127.0.0.1:9000/s3").unwrap();
        assert_eq!(hole.outside.to_string(), "127.0.0.1:9000");
        assert_eq!(shown, format!("http://{}/s3", hole.inside));
        let (hole, shown) = way_out("http://192.0.2.7:9000").unwrap();
        assert_eq!((hole.inside, shown.as_str()), (hole.outside, "http://192.0.2.7:9000"));
        assert!(way_out("http://").is_err());
    }
}
