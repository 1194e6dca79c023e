//! Keys of catalog documents; see [`record`](crate::record) for the list.

use lambent_model::{AccountId, FunctionArn};

pub(crate) const ROOT: &str = "registry/";
pub(crate) const SECRET: &str = "registry/secret";

pub(crate) fn function(arn: &FunctionArn) -> String {
    format!("registry/function/{}/{}", arn.account, arn.name)
}

pub(crate) fn version(arn: &FunctionArn, number: u64) -> String {
    format!("registry/version/{}/{}/{number}", arn.account, arn.name)
}

pub(crate) fn number(arn: &FunctionArn) -> String {
    format!("registry/number/{}/{}", arn.account, arn.name)
}

pub(crate) fn layer(account: &AccountId, name: &str) -> String {
    format!("registry/layer/{account}/{name}")
}

pub(crate) fn mapping(account: &AccountId, uuid: &str) -> String {
    format!("registry/mapping/{account}/{uuid}")
}

pub(crate) fn pair(account: &AccountId, digest: &str) -> String {
    format!("registry/pair/{account}/{digest}")
}

pub(crate) fn signing(account: &AccountId, id: &str) -> String {
    format!("registry/signing/{account}/{id}")
}

/// A key read back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    Function,
    Version {
        account: &'a str,
        name: &'a str,
        number: u64,
    },
    Number {
        account: &'a str,
        name: &'a str,
    },
    Layer,
    Mapping,
    Signing,
    /// Nothing that the snapshot holds.
    Other,
}

pub(crate) fn read(key: &str) -> Key<'_> {
    let parts: Vec<&str> = key.split('/').collect();
    match parts.as_slice() {
        [_, "function", _, _] => Key::Function,
        [_, "version", account, name, number] => match number.parse() {
            Ok(number) => Key::Version { account, name, number },
            Err(_) => Key::Other,
        },
        [_, "number", account, name] => Key::Number { account, name },
        [_, "layer", _, _] => Key::Layer,
        [_, "mapping", _, _] => Key::Mapping,
        [_, "signing", _, _] => Key::Signing,
        _ => Key::Other,
    }
}
