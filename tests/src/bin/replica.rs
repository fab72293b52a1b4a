//! One node of a small replicated program, for `make api` to drive. See `tests::api::replica`.

use clap::Parser as _;
use tests::api::replica::{Arguments, run};

fn main() {
    std::process::exit(run(&Arguments::parse()));
}
