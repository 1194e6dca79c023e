//! The one configuration of the engine: code that was compiled with it runs with it only.
//!
//! Both programs build their engine here, so what one compiles the other can load; [`CACHE_KEY`] names the combination, and what is
//! compiled under another name is compiled anew. Wasmtime checks the same by itself when it loads code; the name spares the attempt.

use serde::{Deserialize, Serialize};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::CALLS;

/// How a component is compiled. Different flavours are different machine code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// Time-outs only.
    #[default]
    Plain,
    /// Instructions are counted, and bounded.
    Fuel,
}

impl Flavour {
    /// As arguments and file names have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Fuel => "fuel",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Plain, Self::Fuel].into_iter().find(|flavour| flavour.name() == text)
    }
}

/// Names the engine and its configuration: raise the last part with every change of [`configuration`] that changes code.
pub const CACHE_KEY: &str = concat!("wasmtime-48-", env!("CARGO_PKG_VERSION"), "-1");

/// Core instances, memories and tables that one component may be made of: Python's interpreter as a component has some twenty.
const PARTS: u32 = 64;
/// Elements of one table; StarlingMonkey and CPython have some ten thousand functions to point to.
const TABLE_ELEMENTS: usize = 100_000;
/// Address space of a memory: all that 32 bits can say.
const MEMORY: usize = 1 << 32;
/// Bytes of a memory that stay resident between two instances: what was written is then put back by copying, which is cheaper than
/// giving the pages to the kernel and faulting them in again.
const RESIDENT: usize = 512 << 10;
/// The guest's stack, and the fiber's that it runs on.
const WASM_STACK: usize = 1 << 20;
const FIBER_STACK: usize = 2 << 20;

/// What both programs have in common: everything that changes code.
fn configuration(flavour: Flavour) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        .consume_fuel(flavour == Flavour::Fuel)
        .memory_reservation(MEMORY as u64)
        .memory_init_cow(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK);
    config
}

/// The engine of the compile program.
pub(super) fn compiler(flavour: Flavour) -> wasmtime::Result<Engine> {
    Engine::new(&configuration(flavour))
}

/// The engine of a host process: instances come from a pool whose address space is reserved once.
pub(super) fn host(flavour: Flavour) -> wasmtime::Result<Engine> {
    let mut config = configuration(flavour);
    let mut pool = PoolingAllocationConfig::new();
    let calls = u32::try_from(CALLS).unwrap_or(u32::MAX);
    pool.total_component_instances(calls)
        .total_core_instances(calls.saturating_mul(4))
        .total_memories(calls)
        .total_tables(calls.saturating_mul(4))
        .total_stacks(calls)
        .max_core_instances_per_component(PARTS)
        .max_memories_per_component(PARTS)
        .max_tables_per_component(PARTS)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(MEMORY)
        .linear_memory_keep_resident(RESIDENT)
        .table_keep_resident(RESIDENT)
        .async_stack_keep_resident(64 << 10)
        // Only pages that were written are put back, where the kernel can tell them (Linux 6.7 and later).
        .pagemap_scan(Enabled::Auto);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}
