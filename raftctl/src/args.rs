//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use raft_core::NodeId;

const EXIT_CODES: &str = "\
Exit codes: 0 all is well; 1 something is wrong with the folder, or it was refused; 2 the question was wrong, or --yes is \
missing: nothing was done.

Where to begin: `raftctl log status DIR` on the folder of each node. Nothing is changed unless you give --yes.";

/// Looks into a node's data folder, checks it, copies it and, only with --yes, repairs it. Makes certificates.
///
/// DIR is the folder that a node is started with. What only reads changes not a byte of it, and its node may be running.
#[derive(Debug, Parser)]
#[command(name = "raftctl", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Answer with JSON, for scripts.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look at the log: what is there, and whether it is whole.
    #[command(subcommand)]
    Log(LogCommand),
    /// Who belongs to the cluster, as the folder's node has recorded it, and as its log says; and whether the node does.
    Members {
        /// The data folder.
        dir: PathBuf,
    },
    /// Take the snapshot out of a folder, or put one in.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Copy a folder, of a running node too, into a new one that holds all that was acknowledged before.
    ///
    /// Every entry is read and checked on the way. The copy is for reading, for `snapshot export`, and for
    /// `recover` when nothing better is left. Never start it as the node while others of its cluster live: it has
    /// forgotten what the node has acknowledged and voted since.
    Backup(BackupArgs),
    /// Let the nodes that are left go on without the others, when a majority is lost for good. The last resort.
    ///
    /// Run it on the folder of EACH node that is left, all of them stopped, with the same --voters, then start
    /// them with that list of peers. It says first what it costs; entries that only the lost nodes had are gone,
    /// though they were acknowledged. While a majority is left, do not: just start it.
    Recover(RecoverArgs),
    /// Make certificates for TLS between the nodes: a CA, and from it one for each node.
    ///
    /// For development and small clusters; with a CA of your own, give each node a certificate with the DNS name
    /// node-ID, for servers and clients both.
    #[command(subcommand)]
    Cert(CertCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Make a CA: ca.pem, for every node, and ca.key, which signs and which no node needs.
    Ca(CertCaArgs),
    /// Make a node's certificate and key: node-ID.pem and node-ID.key.
    ///
    /// With --force the files of a running node can be renewed in place: it takes the new ones within seconds.
    Node(CertNodeArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CertCaArgs {
    /// The folder for both files. Made if it is missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// How long it is valid, in days.
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) days: u16,
    /// Replace the files if they are there. The certificates that the old CA has made are of no use with the new one.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CertNodeArgs {
    /// The folder that `cert ca` has made.
    #[arg(long, value_name = "DIR")]
    pub(crate) ca: PathBuf,
    /// The node's id. A node that is yet to join has none, and needs a name.
    #[arg(long, value_name = "ID", value_parser = node, required_unless_present = "name")]
    pub(crate) id: Option<NodeId>,
    /// The DNS name by which the others know the node [default: node-ID].
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A further name or IP address that the certificate shall hold. The nodes do not look at it.
    #[arg(long = "host", value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    /// How long it is valid, in days.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) days: u16,
    /// The folder for both files. Made if it is missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Replace the files if they are there.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// What the folder is, what it holds, and whether a node would start on it.
    ///
    /// Exit code 1 if a node would be refused; the last line says with which words.
    Status {
        /// The data folder.
        dir: PathBuf,
    },
    /// Print the entries of the log, one on a line.
    Entries(EntriesArgs),
    /// Read everything and check it: each entry, each record, each piece of the snapshot. Tells all that is wrong.
    ///
    /// Exit code 1 if anything is; 2 if it could not begin.
    Verify {
        /// The data folder.
        dir: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct EntriesArgs {
    /// The data folder.
    pub(crate) dir: PathBuf,
    /// The first entry [default: the first that is there].
    #[arg(long, value_name = "INDEX")]
    pub(crate) from: Option<u64>,
    /// The last entry [default: the last that is there].
    #[arg(long, value_name = "INDEX")]
    pub(crate) through: Option<u64>,
    /// At most so many entries.
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
    /// All of each entry's data, and not only its beginning; with --json in hexadecimal.
    #[arg(long)]
    pub(crate) data: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Write the folder's snapshot, checked, into one file.
    Export(ExportArgs),
    /// Put a snapshot that was exported from another node of the same cluster into the folder of a stopped one, as if
    /// the leader had sent it.
    ///
    /// Without --yes it only says what it would do. If the log holds the snapshot's last entry, it goes on behind it;
    /// else the snapshot takes the log's place. It opens the folder as its node would, which counts as a start.
    Import(ImportArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// The data folder.
    pub(crate) dir: PathBuf,
    /// The file to write; - for the standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// Only the bytes of the state, as the state machine wrote them. It cannot be imported again.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Replace the file if there is one.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The data folder.
    pub(crate) dir: PathBuf,
    /// The file that `snapshot export` wrote.
    pub(crate) file: PathBuf,
    /// Do it.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// The data folder.
    pub(crate) dir: PathBuf,
    /// The folder to make. It must not exist, or be empty.
    pub(crate) to: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RecoverArgs {
    /// The data folder of a node that is left.
    pub(crate) dir: PathBuf,
    /// Who is left and shall vote from now on, for example 1,2. The same list on each of them.
    #[arg(long, value_name = "ID,…", value_delimiter = ',', required = true, value_parser = node)]
    pub(crate) voters: Vec<NodeId>,
    /// Do it.
    #[arg(long)]
    pub(crate) yes: bool,
}

fn node(id: &str) -> Result<NodeId, String> {
    match id.trim().parse() {
        Ok(0) | Err(_) => Err("an id is a number from 1 up".to_owned()),
        Ok(id) => Ok(NodeId(id)),
    }
}
