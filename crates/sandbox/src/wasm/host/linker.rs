//! What a component may import, and what of it is called.

use std::sync::OnceLock;

use wasmtime::Engine;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::state::Ctx;
use crate::wasm::engine::{self, Flavour};

mod bindings {
    #![allow(missing_docs, clippy::all, reason = "generated")]
    wasmtime::component::bindgen!({ path: "wit", world: "function", exports: { default: async } });
}
pub(super) use bindings::Function as Direct;
pub(super) use bindings::FunctionPre;
pub(super) use bindings::exports::lambent::function::handler::Context;

/// What is called of a component.
pub(in crate::wasm) enum Callee {
    /// `lambent:function/handler`.
    Direct(FunctionPre<Ctx>),
    /// `wasi:http/incoming-handler`.
    Http(ProxyPre<Ctx>),
}

impl Callee {
    /// For one component; a host process uses [`Runtime::callee`].
    pub(in crate::wasm) fn of(engine: &Engine, component: &Component) -> wasmtime::Result<Self> {
        Self::link(&linker(engine)?, component)
    }

    fn link(linker: &Linker<Ctx>, component: &Component) -> wasmtime::Result<Self> {
        let pre = linker.instantiate_pre(component)?;
        if let Ok(direct) = FunctionPre::new(pre.clone()) {
            return Ok(Self::Direct(direct));
        }
        ProxyPre::new(pre).map(Self::Http).map_err(|_| {
            wasmtime::format_err!(
                "the component exports neither lambent:function/handler@0.1.0 nor wasi:http/incoming-handler@0.2"
            )
        })
    }
}

/// Everything that may be imported. What is behind it is decided by each store's state: no directories, no sockets, no names.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<Ctx>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    Ok(linker)
}

/// An engine and what its components are linked with.
pub(super) struct Runtime {
    engine: Engine,
    linker: Linker<Ctx>,
}

impl Runtime {
    fn new(flavour: Flavour) -> wasmtime::Result<Self> {
        let engine = engine::host(flavour)?;
        Ok(Self { linker: linker(&engine)?, engine })
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn callee(&self, component: &Component) -> wasmtime::Result<Callee> {
        Callee::link(&self.linker, component)
    }
}

/// One for each flavour, made when it is first needed.
#[derive(Default)]
pub(super) struct Runtimes {
    plain: OnceLock<Runtime>,
    fuel: OnceLock<Runtime>,
}

impl Runtimes {
    pub(super) fn of(&self, flavour: Flavour) -> wasmtime::Result<&Runtime> {
        let cell = match flavour {
            Flavour::Plain => &self.plain,
            Flavour::Fuel => &self.fuel,
        };
        match cell.get() {
            Some(runtime) => Ok(runtime),
            None => {
                let made = Runtime::new(flavour)?;
                Ok(cell.get_or_init(|| made))
            }
        }
    }
}
