//! What can be said of a WebAssembly module by its first bytes.

/// Whether something is WebAssembly, of whatever kind.
pub fn is_wasm(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm")
}

/// Whether it looks like a component; an error says what it is instead.
pub fn check(module: &[u8]) -> Result<(), &'static str> {
    match module {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Err(
            "The file is a core WebAssembly module, and a component is needed: build for wasm32-wasip2, or make one of it with \
             `wasm-tools component new`.",
        ),
        [0, b'a', b's', b'm', ..] => Err("The file is a WebAssembly component of a version that is not known here."),
        _ => Err("The file is no WebAssembly component."),
    }
}
