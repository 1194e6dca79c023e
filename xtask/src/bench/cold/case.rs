//! What is started: a file for each kind of runtime whose first line takes the time.

use std::path::PathBuf;

use anyhow::Result;

use crate::bench::install::{self, Function};
use crate::run;
use crate::soak::functions::{node, python};

const PYTHON: &str = "import time\nBEGAN = time.time_ns() // 1000\n\n\ndef handler(event, context):\n    return BEGAN\n\n\n\
                      if __name__ == '__main__':\n    print(BEGAN)\n";
// Date.now() knows whole milliseconds only.
const NODE: &str = "const began = Math.round((performance.timeOrigin + performance.now()) * 1000);\n\
                    exports.handler = async () => began;\nif (require.main === module) console.log(began);\n";

/// One function, for everybody who starts it.
pub struct Case {
    /// Its name in reports.
    pub name: &'static str,
    /// Its runtime's name under Lambent.
    pub runtime: String,
    /// The file's name.
    pub file: &'static str,
    /// What is in it.
    pub content: Vec<u8>,
    /// The same under the official client, for the emulator; none where that is not to be had.
    pub emulator: Option<Function>,
    /// The directory with the file, for `crun`.
    pub dir: PathBuf,
    /// What `crun` starts; the directory is `/function` there. Nothing of a component, for which no pool is kept either.
    pub argv: Vec<String>,
}

impl Case {
    /// Whether it is a program of the operating system, in a container.
    pub fn is_program(&self) -> bool {
        !self.argv.is_empty()
    }
}

/// Those that this machine can run, or the one of that name.
pub fn all(wanted: Option<&str>) -> Result<Vec<Case>> {
    let is_wanted = |name: &str| wanted.is_none_or(|wanted| wanted.trim_end_matches("-empty-pool") == name);
    let mut cases = Vec::new();
    if is_wanted("python") {
        match python() {
            Some(runtime) => cases.push(of_python(runtime)?),
            None => eprintln!("skipped: python, which this machine lacks"),
        }
    }
    if is_wanted("node") {
        match node() {
            Some(runtime) => cases.push(of_node(runtime)?),
            None => eprintln!("skipped: node, which this machine lacks"),
        }
    }
    if is_wanted("provided") {
        let function = install::static_binary()?;
        let (dir, content) = (function.dir.clone(), std::fs::read(function.dir.join("bootstrap"))?);
        let (runtime, argv) = ("provided.al2023".to_owned(), vec!["/function/bootstrap".to_owned()]);
        cases.push(Case { name: "provided", runtime, file: "bootstrap", content, emulator: Some(function), dir, argv });
    }
    if is_wanted("wasm") {
        let (dir, file) = (run::root().join("tests/functions/wasm"), "probe.wasm");
        let (content, runtime, argv) = (std::fs::read(dir.join(file))?, "provided.wasm".to_owned(), Vec::new());
        cases.push(Case { name: "wasm", runtime, file, content, emulator: None, dir, argv });
    }
    Ok(cases)
}

fn of_python(runtime: String) -> Result<Case> {
    let emulator = install::official_python("cold-python", "app", PYTHON)?;
    let interpreter = install::interpreter()?.display().to_string();
    let dir = run::target().join("bench/cold-crun-python");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("app.py"), PYTHON)?;
    let (emulator, argv) = (Some(emulator), vec![interpreter, "/function/app.py".to_owned()]);
    Ok(Case { name: "python", runtime, file: "app.py", content: PYTHON.into(), emulator, dir, argv })
}

fn of_node(runtime: String) -> Result<Case> {
    let emulator = install::official_node("cold-node", NODE)?;
    if emulator.is_none() {
        eprintln!("skipped: node under the emulator; the official client cannot be built here");
    }
    let dir = run::target().join("bench/cold-crun-node");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("app.js"), NODE)?;
    let argv = vec!["/usr/bin/node".to_owned(), "/function/app.js".to_owned()];
    Ok(Case { name: "node", runtime, file: "app.js", content: NODE.into(), emulator, dir, argv })
}
