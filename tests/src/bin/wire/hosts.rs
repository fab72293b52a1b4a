//! Hosts of a network of their own: network namespaces on a bridge, each of which can fall silent towards the others.
//!
//! The harness is on the bridge too, and is never cut off: what it asks a node is answered whatever the others hear. It
//! takes root. All that was made is removed when the hosts are dropped, and what a killed run left behind when the next
//! one makes its own.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tests::api::cluster::Seat;

/// What all names begin with; the id of the process that made them comes next.
const PREFIX: &str = "rwire";
/// Nobody else is in these namespaces.
const PORT: u16 = 7001;
const CONTROL_PORT: u16 = 7002;

/// In which direction a host is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// It hears nothing, and nothing of it is heard.
    Both,
    /// Nothing of it is heard.
    Out,
}

/// See the [module](self).
pub(crate) struct Hosts {
    count: u8,
    /// The second and third byte of the network's addresses.
    net: (u8, u8),
}

impl Hosts {
    /// So many of them.
    pub(crate) fn new(count: u8) -> Result<Self> {
        sweep();
        let pid = std::process::id();
        // Of the private addresses, those of this process: runs do not meet.
        let net = (200 + (pid >> 8 & 31) as u8, (pid & 255) as u8);
        let hosts = Self { count, net };
        let bridge = bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        let own = format!("{}/24", hosts.address(0));
        ip(&["addr", "add", &own, "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for host in 1..=count {
            let (name, near) = (namespace(host), format!("{PREFIX}{pid}v{host}"));
            let address = format!("{}/24", hosts.address(host));
            ip(&["netns", "add", &name])?;
            let far = ["peer", "name", "eth0", "netns", &name];
            ip(&[&["link", "add", &near, "type", "veth"], &far[..]].concat())?;
            ip(&["link", "set", &near, "master", &bridge, "up"])?;
            ip(&["-n", &name, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            // Whether rules can be had is better known now.
            hosts.rules(host, "table inet silence {}\ndelete table inet silence")?;
        }
        Ok(hosts)
    }

    /// A seat on each host.
    pub(crate) fn seats(&self) -> Vec<Seat> {
        let seat = |host| Seat {
            address: SocketAddr::from((self.address(host), PORT)),
            control: SocketAddr::from((self.address(host), CONTROL_PORT)),
            namespace: Some(namespace(host)),
        };
        (1..=self.count).map(seat).collect()
    }

    /// Lets the host of node `id` fall silent.
    pub(crate) fn silence(&self, id: u64, silence: Silence) -> Result<()> {
        let host = u8::try_from(id).context("a host's number")?;
        let others = (1..=self.count).filter(|other| *other != host);
        let others: Vec<_> = others
            .map(|other| self.address(other).to_string())
            .collect();
        let others = others.join(", ");
        let mut rules = format!(
            "table inet silence {{\n chain out {{\n  type filter hook output priority 0;\n  ip daddr {{ {others} }} drop\n }}\n"
        );
        if silence == Silence::Both {
            rules += &format!(
                " chain in {{\n  type filter hook input priority 0;\n  ip saddr {{ {others} }} drop\n }}\n"
            );
        }
        self.rules(host, &(rules + "}\n"))
    }

    /// Lets it be heard again.
    pub(crate) fn lift(&self, id: u64) -> Result<()> {
        let host = u8::try_from(id).context("a host's number")?;
        self.rules(host, "delete table inet silence")
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.net.0, self.net.1, host + 1)
    }

    fn rules(&self, host: u8, rules: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace(host), "nft", "-f", "-"]);
        run(command, rules)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        remove(&format!("{PREFIX}{}", std::process::id()));
    }
}

fn bridge() -> String {
    format!("{PREFIX}{}b", std::process::id())
}

fn namespace(host: u8) -> String {
    format!("{PREFIX}{}n{host}", std::process::id())
}

/// Removes what is left of runs that are over.
fn sweep() {
    let names = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(pid) = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_suffix('b'))
        else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            remove(&format!("{PREFIX}{pid}"));
        }
    }
}

/// Removes what one run made, as far as it is there. A namespace takes its end of the wire with it, and that the other.
fn remove(run_name: &str) {
    for host in 1..=9 {
        let _ = ip(&["netns", "del", &format!("{run_name}n{host}")]);
    }
    let _ = ip(&["link", "del", &format!("{run_name}b")]);
}

fn ip(args: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(args);
    run(command, "")
}

fn run(mut command: Command, input: &str) -> Result<()> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let what = format!("{command:?}");
    let mut child = command.spawn().with_context(|| format!("run {what}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It says itself what it misses.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("run {what}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what}: {}", said.trim());
    Ok(())
}
