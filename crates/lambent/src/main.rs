//! The `lambent` binary: reads the command line, builds the parts, joins them. No decision of the product is made here.
#![forbid(unsafe_code)]

mod cli;

use clap::Parser;

fn main() {
    let cli = cli::Cli::parse();
    println!("{cli:?}");
}
