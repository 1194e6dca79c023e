//! The command line: what can be asked, in clap's words. Nothing here acts.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs AWS Lambda functions on this machine, behind the AWS Lambda API.
#[derive(Debug, Parser)]
#[command(name = "lambent", disable_version_flag = true, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 the function answered with an error."
)]
pub struct Cli {
    /// Print machine-readable JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node: the Lambda API, function URLs and the functions themselves.
    Serve(ServeArgs),
    /// Start a fresh node, deploy the example functions, measure them, and keep serving.
    Demo(DemoArgs),
    /// Create a function from a directory or a zip, or update its code and configuration.
    Deploy(DeployArgs),
    /// Call a function and print what it answers.
    Invoke(InvokeArgs),
    /// Print what a function logged.
    Logs(LogsArgs),
    /// Show pools, containers, memory and rates of a node, live.
    Top(TopArgs),
    /// List, show or delete functions.
    Functions(FunctionsArgs),
    /// List, show, retry or drop events: asynchronous calls that are pending or running.
    Events(EventsArgs),
    /// The same for events that were given up, and what else is in a built-in queue.
    DeadLetters(EventsArgs),
    /// Say how requests of a function are told apart; list, show, explain or drop what its executions returned.
    Executions(ExecutionsArgs),
    /// Say which calls of a function belong to the same container.
    Affinity(AffinityArgs),
    /// Show what was learned of the calls that functions start: when their results are needed, and how long they take.
    Calls(CallsArgs),
    /// List, show, put, delete or run schedules: calls at a time, at a rate, by cron.
    Schedules(SchedulesArgs),
    /// Print an access key of a node, ready for a shell or for ~/.aws.
    Credentials(CredentialsArgs),
    /// Say what this machine can and cannot give, and what to do about it.
    Doctor(DoctorArgs),
    /// Print the configuration in force and where each value came from.
    Config(ServeArgs),
    /// Print the version.
    Version,
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Flags that override the configuration of a node.
#[derive(Debug, Args, Default)]
pub struct ServeArgs {
    /// Read this configuration file [default: ./lambent.toml where it exists].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Answer the Lambda API at this address; port 0 picks a free one [default: 127.0.0.1:9400].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Answer function URLs at this address; port 0 picks a free one [default: 127.0.0.1:9401].
    #[arg(long, value_name = "ADDRESS")]
    pub listen_urls: Option<SocketAddr>,
    /// Keep all state here [default: /var/lib/lambent; demo: ./.lambent].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The account that owns what is created [default: 000000000000].
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// The region this node answers for [default: us-east-1].
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// What keeps functions in: `cell` isolates them, `sim` does not [default: cell].
    #[arg(long, value_name = "NAME")]
    pub sandbox: Option<String>,
    /// Where other AWS services are (code in S3), e.g. http://127.0.0.1:9000; functions see it as AWS_ENDPOINT_URL.
    #[arg(long, value_name = "URL")]
    pub aws_endpoint: Option<String>,
    /// Set any configuration key, e.g. `--set log.format=json`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// How the demo runs.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The node's own flags.
    #[command(flatten)]
    pub node: ServeArgs,
    /// End after the table instead of serving on.
    #[arg(long)]
    pub exit: bool,
    /// Warm calls per function for the latency columns.
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub calls: u32,
}

/// Which node a client command speaks to, and as whom.
#[derive(Debug, Args, Clone, Default)]
pub struct ClientArgs {
    /// The node's Lambda API [default: $LAMBENT_ENDPOINT, the node of --data-dir, else http://127.0.0.1:9400].
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Use the access key and the address of the node that keeps its state here.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The region to sign for [default: $AWS_REGION, else us-east-1].
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
}

/// What to deploy.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// A directory (zipped as it is; its function.toml gives the settings) or a zip.
    #[arg(value_name = "DIR|ZIP")]
    pub source: PathBuf,
    /// The function's name [default: from function.toml, else the file's name].
    #[arg(long)]
    pub name: Option<String>,
    /// The runtime, e.g. python3.11, nodejs20.x, provided.al2023.
    #[arg(long)]
    pub runtime: Option<String>,
    /// The handler, e.g. app.handler.
    #[arg(long)]
    pub handler: Option<String>,
    /// Memory limit in MiB.
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u32>,
    /// Seconds a call may run.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u32>,
    /// An environment variable of the function.
    #[arg(long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Give the function a URL that anyone may call.
    #[arg(long)]
    pub url: bool,
    /// Publish a version.
    #[arg(long)]
    pub publish: bool,
    /// Which node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What to call.
#[derive(Debug, Args)]
pub struct InvokeArgs {
    /// Name, partial ARN or ARN, with `:qualifier` or without.
    pub function: String,
    /// The event. Without it, --payload and --payload-file: standard input where that is not a terminal, else `{}`.
    #[arg(value_name = "JSON", conflicts_with_all = ["payload", "payload_file"])]
    pub event: Option<String>,
    /// The event, the same as the second argument.
    #[arg(long, value_name = "JSON", conflicts_with = "payload_file")]
    pub payload: Option<String>,
    /// The event, from a file; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub payload_file: Option<PathBuf>,
    /// Print the tail of the log to standard error.
    #[arg(long, conflicts_with = "stream")]
    pub log: bool,
    /// Print where the time went to standard error: each stage of the call at the node, and the way there and back.
    #[arg(long, conflicts_with = "stream")]
    pub trace: bool,
    /// Print the answer as it is streamed.
    #[arg(long)]
    pub stream: bool,
    /// The version or alias to call.
    #[arg(long)]
    pub qualifier: Option<String>,
    /// For whom, where the function isolates tenants.
    #[arg(long, value_name = "ID")]
    pub tenant_id: Option<String>,
    /// What it shares with the calls that belong to the same container [default: as set for the function].
    #[arg(long, value_name = "VALUE")]
    pub affinity: Option<String>,
    /// Which node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Whose log to print.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The function's name.
    pub function: String,
    /// Keep printing what is logged, until Ctrl-C.
    #[arg(short, long)]
    pub follow: bool,
    /// Begin so long ago (`10m`, `2h`) or at this time (RFC 3339).
    #[arg(long, default_value = "10m", value_name = "TIME")]
    pub since: String,
    /// Which node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What to watch.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Show it once and end; rates and percentiles are then those since the node's start.
    #[arg(long)]
    pub once: bool,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..), value_name = "SECONDS")]
    pub every: u64,
    /// Show what affinity does for each function instead.
    #[arg(long)]
    pub affinity: bool,
    /// Which node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What to do with functions.
#[derive(Debug, Args)]
pub struct FunctionsArgs {
    /// List where nothing else is asked.
    #[command(subcommand)]
    pub action: Option<FunctionsAction>,
    /// Which node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// One thing to do with functions.
#[derive(Debug, Subcommand)]
pub enum FunctionsAction {
    /// List all functions.
    List {
        /// Which node.
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show one function.
    Get {
        /// Its name.
        function: String,
        /// Which node.
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete one function, or one of its versions.
    Delete {
        /// Its name.
        function: String,
        /// Only this version.
        #[arg(long)]
        qualifier: Option<String>,
        /// Which node.
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// What to do with events.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// List where nothing else is asked.
    #[command(subcommand)]
    pub action: Option<EventsAction>,
    /// Which of them.
    #[command(flatten)]
    pub which: EventsWhich,
}

/// Which events, on which node.
#[derive(Debug, Args, Clone, Default)]
pub struct EventsWhich {
    /// Only those of this function (name, partial ARN or ARN).
    #[arg(long)]
    pub function: Option<String>,
    /// Those in this built-in queue [default: `events`: none, what is pending or running; `dead-letters`: dead-letters].
    #[arg(long, value_name = "NAME")]
    pub queue: Option<String>,
    /// Which node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// One thing to do with events.
#[derive(Debug, Subcommand)]
pub enum EventsAction {
    /// List them, oldest first.
    List {
        /// Which of them.
        #[command(flatten)]
        which: EventsWhich,
    },
    /// Show one with its content.
    Show {
        /// Its number, or the request id that its caller was told.
        id: String,
        /// Which of them.
        #[command(flatten)]
        which: EventsWhich,
    },
    /// Run them now; those that were given up with all their attempts before them.
    Retry {
        /// Their numbers or request ids.
        #[arg(required = true)]
        ids: Vec<String>,
        /// Which of them.
        #[command(flatten)]
        which: EventsWhich,
    },
    /// Forget them.
    Drop {
        /// Their numbers or request ids.
        #[arg(required = true)]
        ids: Vec<String>,
        /// Which of them.
        #[command(flatten)]
        which: EventsWhich,
    },
    /// Forget all of them.
    Purge {
        /// Which of them.
        #[command(flatten)]
        which: EventsWhich,
    },
}

/// What to do with executions.
#[derive(Debug, Args)]
pub struct ExecutionsArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: ExecutionsAction,
}

/// One thing to do with executions.
#[derive(Debug, Subcommand)]
pub enum ExecutionsAction {
    /// Set how requests of a function are told apart; print what is set where nothing is given.
    Configure {
        /// The function: name, partial ARN or ARN.
        function: String,
        /// What makes two requests the same.
        #[arg(long, value_parser = ["off", "key", "dependencies"])]
        mode: Option<String>,
        /// key: where in the payload the key is, for requests without X-Lambent-Idempotency-Key.
        #[arg(long, value_name = "JSONPATH", requires = "mode")]
        key: Option<String>,
        /// The parts of the payload that matter [default: all of it]; can be given several times.
        #[arg(long, value_name = "JSONPATH", requires = "mode")]
        input: Vec<String>,
        /// dependencies: https://HOST/PATH, s3://BUCKET/KEY, file:///PATH or function:NAME[:QUALIFIER]; `{$.a.b}` in it is taken from the payload.
        #[arg(long, value_name = "RESOURCE", requires = "mode")]
        on: Vec<String>,
        /// Seconds that an answer counts.
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        window: u32,
        /// dependencies: milliseconds for which a dependency counts as unchanged after it was looked at.
        #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
        fresh: u32,
        /// Let errors of the function be answers like any other.
        #[arg(long)]
        reuse_errors: bool,
        /// Which node.
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List records, oldest first.
    List {
        /// Only those of this function.
        #[arg(long)]
        function: Option<String>,
        /// Which node.
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show a record with its answer.
    Show {
        /// Its number, as X-Lambent-Execution has it.
        id: u64,
        /// Which node.
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Say whether a record would be used now: each dependency, then and now.
    Why {
        /// Its number, as X-Lambent-Execution has it.
        id: u64,
        /// Which node.
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Forget records.
    Drop {
        /// Their numbers.
        #[arg(required_unless_present = "function")]
        ids: Vec<u64>,
        /// All of this function.
        #[arg(long, conflicts_with = "ids")]
        function: Option<String>,
        /// Which node.
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// What to do with the affinity of a function.
#[derive(Debug, Args)]
pub struct AffinityArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: AffinityAction,
}

/// One thing to do with it.
#[derive(Debug, Subcommand)]
pub enum AffinityAction {
    /// Send calls with the same value to the same container.
    Set {
        /// The function: name, partial ARN or ARN.
        function: String,
        /// Where the value is: header:NAME, query:NAME, a JSONPath of the payload ($.user.id), account, address.
        by: String,
        /// Which node.
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print what is set.
    Show {
        /// The function: name, partial ARN or ARN.
        function: String,
        /// Which node.
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Let any container do for any call again.
    Remove {
        /// The function: name, partial ARN or ARN.
        function: String,
        /// Which node.
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// What to show of calls.
#[derive(Debug, Args)]
pub struct CallsArgs {
    /// Only what this function calls, and how long it runs: name, partial ARN or ARN [default: all].
    pub function: Option<String>,
    /// Which node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What to do with schedules.
#[derive(Debug, Args)]
pub struct SchedulesArgs {
    /// List where nothing else is asked.
    #[command(subcommand)]
    pub action: Option<SchedulesAction>,
    /// Which of them.
    #[command(flatten)]
    pub which: SchedulesWhich,
}

/// Which schedules, on which node.
#[derive(Debug, Args, Clone, Default)]
pub struct SchedulesWhich {
    /// Which group [default: `list`: all of them; else: default].
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Which node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// One thing to do with schedules.
#[derive(Debug, Subcommand)]
pub enum SchedulesAction {
    /// List them, by group and name.
    List {
        /// Which of them.
        #[command(flatten)]
        which: SchedulesWhich,
    },
    /// Show one.
    Show {
        /// Its name.
        name: String,
        /// Which of them.
        #[command(flatten)]
        which: SchedulesWhich,
    },
    /// Make one, or change it.
    Put {
        /// Its name.
        name: String,
        /// When: `at(2026-12-24T18:00:00)`, `rate(5 minutes)`, `cron(0 8 ? * MON-FRI *)`.
        expression: String,
        /// The function it calls (name, partial ARN or ARN).
        #[arg(long)]
        function: String,
        /// The event it is called with [default: one that says which schedule it was, and when].
        #[arg(long, value_name = "JSON")]
        input: Option<String>,
        /// The time zone of the expression.
        #[arg(long, value_name = "ZONE", default_value = "UTC")]
        timezone: String,
        /// Which of them.
        #[command(flatten)]
        which: SchedulesWhich,
    },
    /// Delete one.
    Delete {
        /// Its name.
        name: String,
        /// Which of them.
        #[command(flatten)]
        which: SchedulesWhich,
    },
    /// Call its function now, beside its plan.
    Run {
        /// Its name.
        name: String,
        /// Which of them.
        #[command(flatten)]
        which: SchedulesWhich,
    },
}

/// Which key to print, and how.
#[derive(Debug, Args)]
pub struct CredentialsArgs {
    /// Where the node keeps its state [default: as `serve` would use].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The form of what is printed.
    #[arg(long, value_enum, default_value_t = CredentialsFormat::Env)]
    pub format: CredentialsFormat,
    /// The profile's name in `aws-config` form.
    #[arg(long, default_value = "lambent")]
    pub profile: String,
}

/// Forms of a printed access key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CredentialsFormat {
    /// `export AWS_ACCESS_KEY_ID=...` lines for a shell.
    Env,
    /// A profile for ~/.aws/config, with the endpoint.
    AwsConfig,
}

/// What to look at.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The node's own flags: what they name is what is checked.
    #[command(flatten)]
    pub node: ServeArgs,
}
