//! A chat across terminals: one node of a replicated log in each, and every one shows the same messages in
//! the same order, because the log's order is the chat's.
//!
//! On a terminal it draws a screen ([`tui`]); for scripts, and with `--plain`, it speaks lines ([`plain`]).
//! Both stand on [`node`], which owns the replica's life, and [`chat`], which says what a message's bytes are.
//!
//! It exits with 0 after `/quit`, `/leave`, ctrl-c or SIGTERM; with 2 when the node could not start or the cluster
//! will not have it; with 3 when it was removed from its cluster, now or before; with 1 when it failed later. The cause is the
//! last line on standard error.

mod args;
mod chat;
mod command;
mod lines;
mod logs;
mod members;
mod node;
mod plain;
mod printer;
mod status;
mod stderr;
mod tui;
mod wish;

use std::io::IsTerminal;

use clap::Parser;

use crate::args::Args;
use crate::node::Exit;

fn main() {
    let exit = match Args::parse().command.settings() {
        Err(error) => Exit::failed_start(error),
        Ok(settings) => {
            let system = actix::System::new();
            let plain = settings.plain
                || !std::io::stdin().is_terminal()
                || !std::io::stdout().is_terminal();
            let exit = if plain {
                system.block_on(plain::run(settings))
            } else {
                system.block_on(tui::run(settings))
            };
            // Not dropped: that would wait for whatever still blocks, a look-up of a name for example.
            std::mem::forget(system);
            exit
        }
    };
    if let Some(message) = exit.message {
        stderr::complain(&message);
    }
    std::process::exit(exit.code);
}
