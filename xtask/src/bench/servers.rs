//! The two things that are compared, each as a process of its own that ends with its handle.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::install::Function;
use super::load::{Asked, Target};

/// How long a server may take to answer.
const START_WITHIN: Duration = Duration::from_secs(30);

/// A process that is killed when nobody needs it any more.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Resident memory in MiB.
    fn resident_mib(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    }
}

/// An access key.
#[derive(Clone)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// The region to sign for.
    pub region: String,
}

/// A node with one function.
pub struct Lambent {
    process: Process,
    /// Where it answers.
    pub address: SocketAddr,
    /// Who may call it.
    pub key: Key,
    data: tempfile::TempDir,
    binary: PathBuf,
    env: Vec<(&'static str, String)>,
}

/// Where a node lives: the folder of its data directory, where it matters, and its environment.
#[derive(Default)]
pub struct Ground {
    /// The data directory is made in here.
    pub dir: Option<PathBuf>,
    /// Added to its environment.
    pub env: Vec<(&'static str, String)>,
}

impl Lambent {
    /// Starts a node on a fresh data directory.
    pub fn start(binary: &Path) -> Result<Self> {
        Self::start_with(binary, &[], Stdio::inherit())
    }

    /// The same with more settings, and its log written to `log`.
    pub fn start_with(binary: &Path, settings: &[&str], log: Stdio) -> Result<Self> {
        Self::start_on(Ground::default(), binary, settings, log)
    }

    /// The same on its own ground.
    pub fn start_on(ground: Ground, binary: &Path, settings: &[&str], log: Stdio) -> Result<Self> {
        let Ground { dir, env } = ground;
        let data = dir.map_or_else(tempfile::tempdir, tempfile::tempdir_in)?;
        let (process, address) = serve(binary, &env, settings, data.path(), log)?;
        let shown = output(Command::new(binary).args(["credentials", "--json", "--data-dir"]).arg(data.path()))?;
        let text = |name: &str| shown.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = Key { id: text("access_key_id"), secret: text("secret_access_key"), region: text("region") };
        Ok(Self { process, address, key, data, binary: binary.to_owned(), env })
    }

    /// The node's process.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<()> {
        self.process.0.kill()?;
        self.process.0.wait()?;
        Ok(())
    }

    /// Starts it once more, on the same data.
    pub fn again(&mut self, settings: &[&str], log: Stdio) -> Result<()> {
        (self.process, self.address) = serve(&self.binary, &self.env, settings, self.data.path(), log)?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) -> Result<ExitStatus> {
        Ok(self.end()?)
    }

    fn end(&mut self) -> std::io::Result<ExitStatus> {
        if let Some(ended) = self.process.0.try_wait()? {
            return Ok(ended);
        }
        Command::new("kill").args(["-TERM", &self.pid().to_string()]).status()?;
        self.process.0.wait()
    }

    /// Creates a function.
    pub fn deploy(&self, name: &str, function: &Function, memory_mib: u32) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.arg("deploy").arg(&function.dir).args(["--json", "--runtime", "provided.al2023", "--timeout", "30"]);
        command.args(["--name", name, "--handler", function.handler, "--memory", &memory_mib.to_string()]);
        output(command.arg("--data-dir").arg(self.data.path())).map(drop)
    }

    /// The same on a runtime of the node's own.
    pub fn deploy_runtime(&self, name: &str, function: &Function, runtime: &str, memory_mib: u32) -> Result<()> {
        let dir = function.dir.to_str().context("the directory's name is no text")?;
        let memory = memory_mib.to_string();
        let function = ["--runtime", runtime, "--handler", function.handler, "--memory", &memory, "--name", name];
        self.client(&[["deploy", dir].as_slice(), function.as_slice()].concat()).map(drop)
    }

    /// Runs a client command and gives back what it prints.
    pub fn client(&self, arguments: &[&str]) -> Result<Value> {
        output(Command::new(&self.binary).args(arguments).arg("--json").arg("--data-dir").arg(self.data.path()))
    }

    /// Creates a function that anyone may call by its URL, which is returned.
    pub fn deploy_url(&self, name: &str, function: &Function, runtime: &str, environment: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.arg("deploy").arg(&function.dir).args(["--json", "--runtime", runtime, "--timeout", "30", "--url"]);
        command.args(["--name", name, "--handler", function.handler]);
        command.args(environment.iter().flat_map(|pair| ["--env", pair]));
        let deployed = output(command.arg("--data-dir").arg(self.data.path()))?;
        let url = deployed.get("url").and_then(Value::as_str).context("no URL")?;
        Ok(url.to_owned())
    }

    /// Resident memory of the node, without its containers.
    pub fn resident_mib(&self) -> Result<f64> {
        self.process.resident_mib()
    }
}

/// A node's process, and where it answers.
fn serve(
    binary: &Path,
    env: &[(&'static str, String)],
    settings: &[&str],
    data: &Path,
    log: Stdio,
) -> Result<(Process, SocketAddr)> {
    let mut command = Command::new(binary);
    command.envs(env.iter().map(|(name, value)| (name, value)));
    command.args(["serve", "--listen", "127.0.0.1:0", "--set", "log.filter=warn", "--data-dir"]).arg(data);
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut process = Process(command.spawn().context("cannot start lambent")?);
    let stdout = process.0.stdout.take().context("no standard output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let url = line.split_whitespace().nth(1).with_context(|| format!("lambent said {line:?}"))?;
    Ok((process, url.trim_start_matches("http://").parse()?))
}

impl Drop for Lambent {
    fn drop(&mut self) {
        // Asked politely, so that its cells are gone before the next turn begins.
        let _ = self.end();
    }
}

fn output(command: &mut Command) -> Result<Value> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{command:?} failed");
    }
    serde_json::from_slice(&output.stdout).context("no JSON")
}

/// The emulator with one function.
pub struct Emulator {
    process: Process,
    address: SocketAddr,
}

impl Emulator {
    /// Starts the emulator on two free ports.
    pub fn start(binary: &Path, function: &Function) -> Result<Self> {
        let (address, runtime_api) = (free_address()?, free_address()?);
        let mut command = Command::new(binary);
        command
            .args(["--log-level", "error", "--runtime-interface-emulator-address", &address.to_string()])
            .args(["--runtime-api-address", &runtime_api.to_string()])
            .arg(function.dir.join("bootstrap"))
            .arg(function.handler)
            .current_dir(&function.dir)
            .env("AWS_LAMBDA_FUNCTION_TIMEOUT", "30")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Process(command.spawn().context("cannot start the emulator")?);
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if begun.elapsed() > START_WITHIN {
                bail!("the emulator does not answer at {address}");
            }
            std::thread::yield_now();
        }
        Ok(Self { process, address })
    }

    /// Where its function is called.
    pub fn target(&self) -> Target {
        let path = "/2015-03-31/functions/function/invocations".to_owned();
        Target { address: self.address, path, key: None, asked: Asked::Answer }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Resident memory of the emulator, without the function.
    pub fn resident_mib(&self) -> Result<f64> {
        self.process.resident_mib()
    }
}

/// An address that was free a moment ago; the emulator cannot be told to choose one.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
