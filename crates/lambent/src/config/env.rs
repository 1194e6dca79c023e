//! The one place where the process's environment is read.

/// Environment variables, so that tests hand in their own.
pub trait Env {
    /// The value of one variable; none where it is unset or not Unicode.
    fn get(&self, name: &str) -> Option<String>;

    /// The names of all variables that start with `prefix`.
    fn names(&self, prefix: &str) -> Vec<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        names.filter(|name| name.starts_with(prefix)).collect()
    }
}

#[cfg(test)]
impl<const N: usize> Env for [(&str, &str); N] {
    fn get(&self, name: &str) -> Option<String> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        self.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(key, _)| (*key).to_owned()).collect()
    }
}
