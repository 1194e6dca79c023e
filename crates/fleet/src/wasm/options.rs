//! What a function says about how it wants to be run, in its environment variables.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `LAMBENT_WASM_REUSE` | `true`: instances serve call after call; a number: so many calls. Otherwise each call has an instance of its own |
//! | `LAMBENT_WASM_FUEL` | about how many instructions a call may run; without it only time counts |
//! | `LAMBENT_WASM_HTTP` | hosts that may be reached over HTTP: `name`, `name:port`, `*.name`, `*`, comma-separated. Otherwise none |
//!
//! Variables and not tags, because a change of them makes another generation: what runs always agrees with what is configured.

use std::path::PathBuf;

use lambent_model::FunctionVersion;
use lambent_model::function::Network;
use lambent_sandbox::wasm::{Flavour, Function};

const REUSE: &str = "LAMBENT_WASM_REUSE";
const FUEL: &str = "LAMBENT_WASM_FUEL";
const HTTP: &str = "LAMBENT_WASM_HTTP";

/// Read from a function's variables; what cannot be read means the same as nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Options {
    pub reuse: Option<u32>,
    pub fuel: Option<u64>,
    pub allow: Vec<String>,
}

/// Machine code in a file.
#[derive(Debug, Clone)]
pub(super) struct Code {
    pub path: PathBuf,
    pub sha256: String,
}

impl Options {
    pub(super) fn of(version: &FunctionVersion) -> Self {
        let value = |name: &str| version.environment.get(name).map(|value| value.trim());
        let reuse = match value(REUSE) {
            Some("true") => Some(u32::MAX),
            other => other.and_then(|text| text.parse().ok()).filter(|calls| *calls > 1),
        };
        let listed = match version.network {
            Network::Internet => value(HTTP).unwrap_or_default(),
            Network::None => "",
        };
        let allow = listed.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned).collect();
        Self { reuse, fuel: value(FUEL).and_then(|text| text.parse().ok()), allow }
    }

    pub(super) fn flavour(&self) -> Flavour {
        if self.fuel.is_some() { Flavour::Fuel } else { Flavour::Plain }
    }

    /// What a host process needs to know of the function.
    pub(super) fn function(self, version: &FunctionVersion, log_stream: &str, code: Code) -> Function {
        Function {
            code: code.path,
            sha256: code.sha256,
            flavour: self.flavour(),
            name: version.arn.name.to_string(),
            version: version.version.to_string(),
            memory_mib: version.memory_mib,
            env: environment(version, log_stream),
            reuse: self.reuse,
            fuel: self.fuel,
            allow: self.allow,
        }
    }
}

/// The guest's environment: the user's variables, and those of Lambda that mean something without files and a Runtime API.
fn environment(version: &FunctionVersion, log_stream: &str) -> Vec<(String, String)> {
    let mut all = version.environment.clone();
    let region = version.arn.region.as_str();
    all.entry("TZ".to_owned()).or_insert_with(|| ":UTC".to_owned());
    let reserved = [
        ("_HANDLER", version.handler.clone().unwrap_or_default()),
        ("AWS_REGION", region.to_owned()),
        ("AWS_DEFAULT_REGION", region.to_owned()),
        ("AWS_LAMBDA_FUNCTION_NAME", version.arn.name.to_string()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", version.memory_mib.to_string()),
        ("AWS_LAMBDA_FUNCTION_VERSION", version.version.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", version.logging.group.clone()),
        ("AWS_LAMBDA_LOG_STREAM_NAME", log_stream.to_owned()),
    ];
    all.extend(reserved.map(|(name, value)| (name.to_owned(), value)));
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::tests::version;

    fn read(variables: &[(&str, &str)]) -> Options {
        let mut function = version(0, 128);
        function.network = Network::Internet;
        for (name, value) in variables {
            function.environment.insert((*name).to_owned(), (*value).to_owned());
        }
        Options::of(&function)
    }

    #[test]
    fn are_read_from_variables() {
        assert_eq!(read(&[]), Options::default());
        assert_eq!(read(&[(REUSE, "true")]).reuse, Some(u32::MAX));
        assert_eq!(read(&[(REUSE, "100")]).reuse, Some(100));
        for none in ["false", "0", "1", "-1", ""] {
            assert_eq!(read(&[(REUSE, none)]).reuse, None, "{none}");
        }
        assert_eq!(read(&[(FUEL, "1000000")]).flavour(), Flavour::Fuel);
        assert_eq!(read(&[(FUEL, "much")]).flavour(), Flavour::Plain);
        let allow = read(&[(HTTP, "a.example, *.b.example:80,,")]).allow;
        assert_eq!(allow, ["a.example", "*.b.example:80"]);
    }

    #[test]
    fn a_function_without_network_reaches_nobody() {
        let mut function = version(0, 128);
        function.network = Network::Internet;
        function.environment.insert(HTTP.to_owned(), "*".to_owned());
        assert_eq!(Options::of(&function).allow, ["*"]);
        function.network = Network::None;
        assert!(Options::of(&function).allow.is_empty());
    }
}
