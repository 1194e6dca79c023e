//! What is learned, on disk: a document of the catalog for each function that calls, or is called.
//!
//! Written behind: what has changed is written once a minute, [`MOST_AT_ONCE`] functions in a commit, and at the end of the node. Losing the
//! last minute costs a little caution. What cannot be read, or is of a later release, is left out, and begun anew with the next note; what is
//! of functions that are no more is deleted when the node starts.

use lambent_model::FunctionArn;
use lambent_registry::Error as RegistryError;
use lambent_store::port::{Document, Expect, Write};
use lambent_store::{Catalog, record};

use super::learned::{Kept, Learned};
use crate::Directory;

const PREFIX: &str = "learned/";
/// Of the documents.
const FORMAT: u32 = 1;
/// Functions that one commit writes.
pub(super) const MOST_AT_ONCE: usize = 64;

fn key(function: &FunctionArn) -> String {
    format!("{PREFIX}{function}")
}

/// Takes up what was kept.
pub(super) async fn read(
    catalog: &dyn Catalog,
    directory: &dyn Directory,
    learned: &mut Learned,
) -> Result<(), lambent_store::Error> {
    let mut gone = Vec::new();
    for document in catalog.list(PREFIX).await? {
        let function = document.key.strip_prefix(PREFIX).and_then(arn);
        let is_gone = |function| matches!(directory.resolve(function, None), Err(RegistryError::ResourceNotFound(_)));
        match function {
            Some(function) if !is_gone(&function) => restore(learned, function, &document),
            _ => gone.push(Write { key: document.key, expect: Expect::Anything, value: None }),
        }
    }
    if !gone.is_empty() {
        tracing::info!(functions = gone.len(), "forgot when calls of functions were needed that are no more");
        catalog.commit(gone).await?;
    }
    Ok(())
}

fn restore(learned: &mut Learned, function: FunctionArn, document: &Document) {
    match record::read::<Kept>(FORMAT, document) {
        Ok(kept) => learned.restore(function, kept),
        Err(error) => {
            tracing::warn!(
                %function,
                error = &error as &dyn std::error::Error,
                "what was learned of its calls cannot be read; learning begins anew"
            );
        }
    }
}

fn arn(text: &str) -> Option<FunctionArn> {
    let named: lambent_model::FunctionRef = text.parse().ok()?;
    let arn = named.resolve(&Default::default(), &Default::default());
    (arn.to_string() == text).then_some(arn)
}

/// The commit that keeps what is known of these functions now.
pub(super) fn writes(learned: &Learned, functions: &[FunctionArn]) -> Vec<Write> {
    let write = |function| {
        let value = learned.kept(function).and_then(|kept| record::write(FORMAT, &kept).ok());
        Write { key: key(function), expect: Expect::Anything, value }
    };
    functions.iter().map(write).collect()
}
