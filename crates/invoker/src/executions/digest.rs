//! Names of things by their content.

use aws_lc_rs::digest::{Context, SHA256};

/// What makes requests the same.
pub(super) type Key = [u8; 32];

/// A digest of parts, none of which can be taken for another's end.
pub(super) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Key {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}
