//! `model check` walks every state of every model; `model explore NAME` shows one of them in a browser.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use model::check;
use model::cluster::Cluster;
use model::models;
use stateright::Model as _;

#[derive(Parser)]
#[command(
    about = "A model check of raft-core: every order of messages, writes and crashes within bounds"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Walk every state of every model
    Check {
        /// Small bounds: a minute or two
        #[arg(long)]
        quick: bool,
        /// This model alone
        #[arg(long, value_name = "NAME", value_parser = models::NAMES)]
        only: Option<String>,
        /// Of it, this scene alone
        #[arg(long, value_name = "NAME")]
        scene: Option<String>,
        /// Scenes that are walked at the same time
        #[arg(long, value_name = "N", default_value_t = 2)]
        threads: usize,
    },
    /// Show a model in a browser, state by state
    Explore {
        /// Which model
        #[arg(value_parser = models::NAMES)]
        name: String,
        /// Which of its scenes; the first if none is named
        #[arg(long, value_name = "NAME")]
        scene: Option<String>,
        /// Where it listens, on loopback
        #[arg(long, default_value_t = 3000)]
        port: u16,
    },
}

fn main() -> Result<ExitCode> {
    match Args::parse().command {
        Command::Check {
            quick,
            only,
            scene,
            threads,
        } => {
            let scenes = models::select(quick, only.as_deref(), scene.as_deref());
            anyhow::ensure!(!scenes.is_empty(), "no model has such a scene");
            check::run_all(scenes, threads)
        }
        Command::Explore { name, scene, port } => {
            let scenes = models::select(false, Some(&name), scene.as_deref());
            let scene = scenes
                .into_iter()
                .next()
                .context("the model has no such scene")?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let cluster = Cluster::new(scene).map_err(anyhow::Error::msg)?;
            println!("{name} is shown at http://{address}/ until ctrl-c");
            cluster.checker().serve(address);
            Ok(ExitCode::SUCCESS)
        }
    }
}
