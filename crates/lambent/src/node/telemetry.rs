//! What the node says about itself: its log on standard error, metrics for `/metrics`, traces to a collector.

use std::time::Duration;

use anyhow::{Context, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::{Config, LogFormat};

/// How often the recorder drops what histograms no longer need.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// Buckets of every histogram of seconds: a warm call takes a fraction of a millisecond, a time-out fifteen minutes.
const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0, 900.0,
];

/// The recorders, installed for the whole process.
pub struct Telemetry {
    metrics: PrometheusHandle,
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Installs log, metrics and traces. Once a process.
    pub async fn install(config: &Config) -> Result<Self> {
        let traces = match config.otlp.endpoint.clone() {
            Some(endpoint) => Some(tokio::task::spawn_blocking(move || traces(&endpoint)).await??),
            None => None,
        };
        let filter = EnvFilter::try_new(&config.log.filter)
            .with_context(|| format!("log.filter = {:?} is no filter", config.log.filter))?;
        let lines = match config.log.format {
            LogFormat::Text => fmt::layer().with_writer(std::io::stderr).with_target(false).boxed(),
            LogFormat::Json => fmt::layer().with_writer(std::io::stderr).json().flatten_event(true).boxed(),
        };
        let spans = traces.as_ref().map(|provider| {
            let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("lambent"));
            // Only our own spans; a collector's client must not trace itself.
            layer.with_filter(EnvFilter::new("off,lambent=debug,lambent_invoker=debug,lambent_fleet=debug,lambent_frontend=debug,lambent_gateway=debug,lambent_registry=debug"))
        });
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans);
        tracing::subscriber::set_global_default(subscriber).context("logging is installed twice")?;
        let metrics = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
            .install_recorder()
            .context("metrics are installed twice")?;
        Ok(Self { metrics, traces })
    }

    /// Gives the text of `/metrics` at every call.
    pub fn metrics(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let handle = self.metrics.clone();
        move || handle.render()
    }

    /// Keeps the recorder small, for ever.
    pub async fn upkeep(handle: PrometheusHandle) {
        let mut tick = tokio::time::interval(UPKEEP_EVERY);
        loop {
            tick.tick().await;
            handle.run_upkeep();
        }
    }

    /// The recorder's handle.
    pub fn recorder(&self) -> PrometheusHandle {
        self.metrics.clone()
    }

    /// Sends what is not sent yet.
    pub async fn shutdown(self) {
        if let Some(traces) = self.traces {
            let ended = tokio::task::spawn_blocking(move || traces.shutdown()).await;
            if let Ok(Err(error)) = ended {
                tracing::warn!(%error, "the last traces were not sent");
            }
        }
    }
}

/// Spans to an OTLP/HTTP collector. The exporter's HTTP client is a blocking one with a thread of its own, so this must not run
/// on the async runtime.
fn traces(endpoint: &str) -> Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()
        .with_context(|| format!("otlp.endpoint = {endpoint:?} is not usable"))?;
    let resource = Resource::builder().with_service_name("lambent").build();
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}
