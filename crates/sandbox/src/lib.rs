//! Isolation back ends behind one trait.
//!
//! A [`Sandbox`] makes [`Cell`]s: process trees that share nothing with the host but what their [`CellSpec`] names. The node talks
//! to a cell through a tiny agent inside it; nobody else does. What the host cannot give is refused, never weakened silently.
//!
//! | back end | for | isolation |
//! | --- | --- | --- |
//! | [`cell`] | everything else | namespaces, cgroups, no privileges, a filter of system calls |
//! | [`sim`] | tests and machines without namespaces | none: ordinary child processes, limits by watching |

pub mod agent;
pub mod cell;
pub mod egress;
mod error;
mod gate;
mod lowered;
mod order;
mod owner;
mod pidfd;
pub mod port;
mod procfs;
mod signals;
pub mod sim;
mod spawner;
pub mod wasm;
mod wire;

pub use error::Error;
#[cfg(feature = "lower-barriers")]
pub use lowered::Lowered;
pub use port::{
    Barrier, BlankSpec, Cell, CellSpec, ExitStatus, Mapped, Mount, Order, Process, ProcessSpec, Sandbox,
    Specialisation, Template, TemplateSpec, Usage,
};
