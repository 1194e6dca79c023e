//! What a process of a container finds in its environment, and which program is started.
//!
//! Names and values are AWS's (<https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>). The user's variables go over the
//! defaults and never over the reserved ones.

use std::collections::BTreeMap;

use lambent_model::FunctionVersion;
use lambent_model::function::{LogFormat, LogLevel, Runtime};
use lambent_runtime_api::{Credentials, InitializationType};

use crate::interpreters::Interpreter;

/// Where code, layers and our runtimes are inside a cell.
pub(crate) const TASK: &str = "/var/task";
pub(crate) const OPT: &str = "/opt";
pub(crate) const RUNTIME: &str = "/var/runtime";

/// What differs from container to container.
pub(crate) struct Place<'a> {
    /// Address of the Runtime API as seen inside.
    pub runtime_api: String,
    /// Name of the log stream.
    pub log_stream: &'a str,
    /// Where layers are, if not at [`OPT`]: what `sim` makes of it.
    pub opt: Option<String>,
    /// Why the container is made.
    pub initialization: InitializationType,
    /// Where AWS's SDKs find services.
    pub aws_endpoint_url: Option<&'a str>,
    /// How the account's own services are reached; none: they are not.
    pub access: Option<Access>,
    /// What a runtime of ours does between init and the first event, where the function asked for snapshots: `take` one, or `skip` it.
    pub snapshot: Option<&'static str>,
}

/// How code in a container signs requests to the services of its account, which are at the Runtime API's address.
pub(crate) enum Access {
    /// With these.
    Keys(Credentials),
    /// With what it asks for: what is in the environment may be in a snapshot.
    Asked,
}

/// Variables that extensions do not get.
const NOT_FOR_EXTENSIONS: [&str; 8] = [
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_XRAY_CONTEXT_MISSING",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
    "_HANDLER",
    "_LAMBENT_SNAPSHOT",
];

/// The runtime's environment.
pub(crate) fn of_runtime(function: &FunctionVersion, place: &Place<'_>) -> Vec<(String, String)> {
    let mut all: BTreeMap<String, String> =
        defaults(&function.runtime).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    all.extend(function.environment.iter().map(|(name, value)| (name.clone(), value.clone())));
    all.extend(reserved(function, place).into_iter().map(|(name, value)| (name.to_owned(), value)));
    all.into_iter().collect()
}

/// An extension's environment.
pub(crate) fn of_extension(function: &FunctionVersion, place: &Place<'_>) -> Vec<(String, String)> {
    let mut all = of_runtime(function, place);
    all.retain(|(name, _)| !NOT_FOR_EXTENSIONS.contains(&name.as_str()));
    all
}

/// What the user may override.
fn defaults(runtime: &Runtime) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("LANG", "en_US.UTF-8".to_owned()),
        ("TZ", ":UTC".to_owned()),
        ("PATH", "/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin".to_owned()),
        (
            "LD_LIBRARY_PATH",
            "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib".to_owned(),
        ),
        ("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR".to_owned()),
    ];
    if let Runtime::Node { major } = runtime {
        let layers = format!("/opt/nodejs/node{major}/node_modules:/opt/nodejs/node_modules");
        all.push(("NODE_PATH", format!("{layers}:{TASK}:{RUNTIME}/node/modules")));
    }
    all
}

/// What the user may not override.
fn reserved(function: &FunctionVersion, place: &Place<'_>) -> Vec<(&'static str, String)> {
    let region = function.arn.region.as_str().to_owned();
    let mut all = vec![
        ("_HANDLER", function.handler.clone().unwrap_or_default()),
        ("AWS_REGION", region.clone()),
        ("AWS_DEFAULT_REGION", region),
        ("AWS_LAMBDA_FUNCTION_NAME", function.arn.name.to_string()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", function.memory_mib.to_string()),
        ("AWS_LAMBDA_FUNCTION_VERSION", function.version.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", initialization(place.initialization).to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", function.logging.group.clone()),
        ("AWS_LAMBDA_LOG_STREAM_NAME", place.log_stream.to_owned()),
        ("AWS_LAMBDA_RUNTIME_API", place.runtime_api.clone()),
        ("LAMBDA_TASK_ROOT", TASK.to_owned()),
        ("LAMBDA_RUNTIME_DIR", RUNTIME.to_owned()),
    ];
    if !matches!(function.runtime, Runtime::Provided(_) | Runtime::Wasm) {
        all.push(("AWS_EXECUTION_ENV", format!("AWS_Lambda_{}", function.runtime)));
    }
    if function.logging.format == LogFormat::Json {
        all.push(("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()));
        let level = function.logging.application_level.unwrap_or(LogLevel::Info);
        all.push(("AWS_LAMBDA_LOG_LEVEL", format!("{level:?}").to_uppercase()));
    }
    if let Some(what) = place.snapshot {
        all.push(("_LAMBENT_SNAPSHOT", what.to_owned()));
    }
    if let Some(opt) = &place.opt {
        all.push(("_LAMBENT_OPT", opt.clone()));
    }
    if let Some(access) = &place.access {
        access_variables(function, place, access, &mut all);
    }
    // A user's own endpoint is the user's business.
    if let Some(url) = place.aws_endpoint_url
        && !function.environment.contains_key("AWS_ENDPOINT_URL")
    {
        all.push(("AWS_ENDPOINT_URL", url.to_owned()));
    }
    all
}

/// Where the account's Lambda is, and what to sign with. The names of credentials are reserved: no function can have set them.
fn access_variables(
    function: &FunctionVersion,
    place: &Place<'_>,
    access: &Access,
    all: &mut Vec<(&'static str, String)>,
) {
    let own = |name: &str| function.environment.contains_key(name);
    if !own("AWS_ENDPOINT_URL_LAMBDA") && !own("AWS_ENDPOINT_URL") {
        all.push(("AWS_ENDPOINT_URL_LAMBDA", format!("http://{}", place.runtime_api)));
    }
    match access {
        Access::Keys(keys) => all.extend([
            ("AWS_ACCESS_KEY_ID", keys.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", keys.secret_access_key.clone()),
            ("AWS_SESSION_TOKEN", keys.session_token.clone()),
        ]),
        Access::Asked => {
            let address = format!("http://{}/lambent/2026-11-24/credentials", place.runtime_api);
            all.push(("AWS_CONTAINER_CREDENTIALS_FULL_URI", address));
        }
    }
}

/// AWS's names.
fn initialization(why: InitializationType) -> &'static str {
    match why {
        InitializationType::OnDemand => "on-demand",
        InitializationType::ProvisionedConcurrency => "provisioned-concurrency",
        InitializationType::SnapStart => "snap-start",
    }
}

/// The command of a runtime. `bootstrap` is where the one of a `provided` function was found.
pub(crate) fn command(function: &FunctionVersion, interpreter: Option<&Interpreter>, bootstrap: &str) -> Vec<String> {
    let ours = interpreter.and_then(|interpreter| interpreter_command(&function.runtime, interpreter));
    let Some(mut command) = ours else { return vec![bootstrap.to_owned()] };
    // AWS honours the wrapper for its own runtimes only; a custom one may do so itself.
    if let Some(wrapper) = function.environment.get("AWS_LAMBDA_EXEC_WRAPPER") {
        command.insert(0, wrapper.clone());
    }
    command
}

/// The command of a runtime of ours; none for those that are not.
pub(crate) fn interpreter_command(runtime: &Runtime, interpreter: &Interpreter) -> Option<Vec<String>> {
    let program = interpreter.program.clone();
    match runtime {
        Runtime::Python { .. } => {
            Some(vec![program, "-s".to_owned(), "-u".to_owned(), format!("{RUNTIME}/python/bootstrap.py")])
        }
        Runtime::Node { .. } => Some(vec![program, format!("{RUNTIME}/node/bootstrap.cjs")]),
        Runtime::Provided(_) | Runtime::Wasm => None,
    }
}

/// Beginnings of variables that are read once, when a process starts: by the loader and the C library, by the interpreter, by what the
/// interpreter is linked with.
const READ_AT_START: [&str; 10] =
    ["LD_", "LC_", "LANG", "GLIBC_TUNABLES", "MALLOC_", "GCONV_", "PYTHON", "NODE_", "UV_", "OPENSSL_"];
/// Variables with such a beginning that our runtimes take over from an order, or that only code reads.
const TAKEN_OVER: [&str; 3] = ["PYTHONPATH", "NODE_PATH", "NODE_ENV"];

/// Whether a function can be served by a runtime that was started before it was known for whom ([`lambent_sandbox::Order`]): one of ours,
/// and the function sets nothing that only a process's start can obey.
pub(crate) fn may_wait(runtime: &Runtime, environment: &BTreeMap<String, String>) -> bool {
    let ours = matches!(runtime, Runtime::Python { .. } | Runtime::Node { .. });
    let at_start =
        |name: &str| READ_AT_START.iter().any(|beginning| name.starts_with(beginning)) && !TAKEN_OVER.contains(&name);
    ours && !environment.keys().any(|name| name == "AWS_LAMBDA_EXEC_WRAPPER" || at_start(name))
}

/// What a waiting runtime is started with: what of its environment is the same for every function it [may](may_wait) serve.
pub(crate) fn of_waiting(runtime: &Runtime) -> Vec<(String, String)> {
    defaults(runtime).into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::placement::tests::version;

    fn place() -> Place<'static> {
        Place {
            runtime_api: "127.0.0.1:9001".to_owned(),
            log_stream: "s",
            opt: None,
            initialization: InitializationType::OnDemand,
            aws_endpoint_url: Some("http://aws"),
            access: None,
            snapshot: None,
        }
    }

    fn value(all: &[(String, String)], name: &str) -> Option<String> {
        all.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn the_users_variables_go_over_defaults_and_under_reserved_ones() {
        let mut function = version(0, 128);
        for (name, text) in [("TZ", "Asia/Tokyo"), ("_HANDLER", "stolen"), ("MINE", "1")] {
            function.environment.insert(name.to_owned(), text.to_owned());
        }
        let all = of_runtime(&function, &place());
        assert_eq!(value(&all, "TZ").as_deref(), Some("Asia/Tokyo"));
        assert_eq!(value(&all, "_HANDLER").as_deref(), Some(""));
        assert_eq!(value(&all, "MINE").as_deref(), Some("1"));
        assert_eq!(value(&all, "AWS_ENDPOINT_URL").as_deref(), Some("http://aws"));
        assert_eq!(value(&all, "AWS_EXECUTION_ENV"), None, "custom runtimes have none");
        let extension = of_extension(&function, &place());
        assert_eq!((value(&extension, "_HANDLER"), value(&extension, "MINE").as_deref()), (None, Some("1")));
    }

    #[test]
    fn code_finds_its_accounts_lambda_unless_it_has_another() {
        let mut function = version(0, 128);
        let keys = || Credentials {
            access_key_id: "ASIA".to_owned(),
            secret_access_key: "secret".to_owned(),
            session_token: "token".to_owned(),
            expires_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let with =
            |function: &FunctionVersion, access| of_runtime(function, &Place { access: Some(access), ..place() });
        let all = with(&function, Access::Keys(keys()));
        assert_eq!(value(&all, "AWS_ENDPOINT_URL_LAMBDA").as_deref(), Some("http://127.0.0.1:9001"));
        assert_eq!(value(&all, "AWS_SESSION_TOKEN").as_deref(), Some("token"));
        let all = with(&function, Access::Asked);
        assert_eq!(value(&all, "AWS_SESSION_TOKEN"), None, "a snapshot would hold it");
        let address = "http://127.0.0.1:9001/lambent/2026-11-24/credentials";
        assert_eq!(value(&all, "AWS_CONTAINER_CREDENTIALS_FULL_URI").as_deref(), Some(address));
        function.environment.insert("AWS_ENDPOINT_URL".to_owned(), "http://mine".to_owned());
        assert_eq!(value(&with(&function, Access::Keys(keys())), "AWS_ENDPOINT_URL_LAMBDA"), None);
    }

    #[test]
    fn the_wrapper_goes_before_our_runtimes_only() {
        let mut function = version(0, 128);
        function.environment.insert("AWS_LAMBDA_EXEC_WRAPPER".to_owned(), "/opt/wrap".to_owned());
        assert_eq!(command(&function, None, "/opt/bootstrap"), ["/opt/bootstrap"]);
        function.runtime = Runtime::Python { minor: 12 };
        let python = Interpreter { program: "/usr/bin/python3.12".to_owned(), mount: None };
        assert_eq!(
            command(&function, Some(&python), ""),
            ["/opt/wrap", "/usr/bin/python3.12", "-s", "-u", "/var/runtime/python/bootstrap.py"]
        );
    }

    #[test]
    fn what_a_start_alone_can_obey_keeps_a_function_from_a_waiting_runtime() {
        let with = |runtime: Runtime, name: &str| {
            may_wait(&runtime, &[(name.to_owned(), "1".to_owned())].into_iter().collect::<BTreeMap<_, _>>())
        };
        let (python, node) = (Runtime::Python { minor: 12 }, Runtime::Node { major: 22 });
        for name in ["MINE", "TZ", "PATH", "HOME", "PYTHONPATH", "NODE_PATH", "NODE_ENV", "SSL_CERT_FILE", "TMPDIR"] {
            assert!(with(python.clone(), name) && with(node.clone(), name), "{name}");
        }
        for name in [
            "AWS_LAMBDA_EXEC_WRAPPER",
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LANG",
            "LC_ALL",
            "LANGUAGE",
            "MALLOC_ARENA_MAX",
            "GLIBC_TUNABLES",
            "PYTHONHASHSEED",
            "PYTHONUTF8",
            "NODE_OPTIONS",
            "NODE_EXTRA_CA_CERTS",
            "UV_THREADPOOL_SIZE",
            "OPENSSL_CONF",
        ] {
            assert!(!with(python.clone(), name) && !with(node.clone(), name), "{name}");
        }
        assert!(
            !may_wait(&version(0, 128).runtime, &BTreeMap::new()),
            "a bootstrap of the function's own does not wait"
        );
        let names: Vec<String> = of_waiting(&python).into_iter().map(|(name, _)| name).collect();
        assert!(names.contains(&"LD_LIBRARY_PATH".to_owned()) && !names.contains(&"AWS_REGION".to_owned()));
    }
}
