//! `raftctl cert ca` and `raftctl cert node`: a CA for development, and the nodes' certificates.
//!
//! Invariants: nothing is replaced without `--force`, and then at once, by a rename, so that a running node finds the
//! old file or the new one; a key is never readable by others; what is put in place is what a node would start with.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use humantime::format_rfc3339_seconds;
use raft_net::{Tls, TlsFiles, TlsName};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use serde_json::json;

use crate::args::{CertCaArgs, CertNodeArgs};
use crate::out::{Exit, Out};

const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Certificates are valid from a little before they are made: the hosts' clocks differ.
const SINCE: Duration = Duration::from_secs(60 * 60);

/// A file is there already, and may not be replaced.
#[derive(Debug, thiserror::Error)]
#[error("{} exists: nothing was done; --force replaces it", .0.display())]
pub(crate) struct Exists(PathBuf);

pub(crate) fn ca(args: &CertCaArgs, out: &mut Out) -> anyhow::Result<Exit> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Two CAs have two names, so that nobody takes one for the other.
    let number: String = params
        .key_identifier(&key)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    params.distinguished_name = named(&format!("raft development CA {number}"));
    let not_after = valid_for(&mut params, args.days);
    let ca = params.self_signed(&key)?;

    let made = Made::new(&args.out, [CA_CERT, CA_KEY], args.force)?;
    made.write(&ca.pem(), &key.serialize_pem())?;
    made.publish()?;
    let [cert, key] = &made.paths;
    out.json(|| {
        json!({
            "ca": cert.display().to_string(),
            "key": key.display().to_string(),
            "not_after": format_rfc3339_seconds(not_after).to_string(),
        })
    })?;
    let until = format_rfc3339_seconds(not_after);
    out.line(format!(
        "the CA is in {}, valid until {until}: give it to every node, as --tls-ca",
        cert.display()
    ))?;
    out.line(format!(
        "its key is in {}: whoever has it can make any node; keep it off the nodes",
        key.display()
    ))?;
    out.line(format!(
        "next, for each node: raftctl cert node --ca {} --id 1 --out DIR",
        args.out.display()
    ))?;
    Ok(Exit::Good)
}

pub(crate) fn node(args: &CertNodeArgs, out: &mut Out) -> anyhow::Result<Exit> {
    let ca = args.ca.join(CA_CERT);
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let ca_key = args.ca.join(CA_KEY);
    let signs = KeyPair::from_pem(&read(&ca_key)?)
        .with_context(|| format!("{} is no key", ca_key.display()))?;
    let issuer = Issuer::from_ca_cert_pem(&read(&ca)?, signs)
        .with_context(|| format!("{} is no CA", ca.display()))?;

    let default_name = args.id.map(Tls::default_name);
    let Some(name) = args.name.clone().or_else(|| default_name.clone()) else {
        bail!("a node that has no id needs a name: give --id or --name");
    };
    let file = default_name.as_ref().unwrap_or(&name);
    let bound = TlsName::new(name.clone())?;
    let mut names = vec![name.clone()];
    names.extend(args.hosts.iter().filter(|host| **host != name).cloned());
    let mut params = CertificateParams::new(names.clone())?;
    params.distinguished_name = named(&name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    let not_after = valid_for(&mut params, args.days);
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, &issuer)?;

    let files = [&format!("{file}.pem"), &format!("{file}.key")];
    let made = Made::new(&args.out, files.map(String::as_str), args.force)?;
    made.write(&cert.pem(), &key.serialize_pem())?;
    let [cert, key] = made.unpublished();
    let files = TlsFiles {
        ca: ca.clone(),
        cert,
        key,
    };
    if let Err(error) = Tls::load(files, Some(bound)) {
        made.discard();
        bail!("the certificate would be of no use: {error}");
    }
    made.publish()?;
    let [cert, key] = &made.paths;
    out.json(|| {
        json!({
            "ca": ca.display().to_string(),
            "cert": cert.display().to_string(),
            "key": key.display().to_string(),
            "names": names,
            "not_after": format_rfc3339_seconds(not_after).to_string(),
        })
    })?;
    let until = format_rfc3339_seconds(not_after);
    let whose = args
        .id
        .map_or_else(|| "a node that joins".to_owned(), |id| format!("node {id}"));
    out.line(format!(
        "{whose}: for {}, valid until {until}",
        names.join(", ")
    ))?;
    out.line(format!(
        "start it with --tls-ca {} --tls-cert {} --tls-key {}",
        ca.display(),
        cert.display(),
        key.display()
    ))?;
    match args.id {
        Some(id) if Some(&name) != default_name.as_ref() => {
            out.line(format!("and all nodes with --tls-names {id}={name}"))?;
        }
        Some(_) => {}
        None => out.line(format!("and with --own-tls-name {name}, to join"))?,
    }
    Ok(Exit::Good)
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Makes it valid from about now on; gives the end.
fn valid_for(params: &mut CertificateParams, days: u16) -> SystemTime {
    let unix = SystemTime::UNIX_EPOCH;
    let now = SystemTime::now().duration_since(unix).unwrap_or_default();
    let end = now + DAY * u32::from(days);
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(SINCE);
    params.not_after = epoch + end;
    unix + end
}

/// A certificate and its key, on the way to their places.
struct Made {
    paths: [PathBuf; 2],
    force: bool,
}

impl Made {
    fn new(dir: &Path, names: [&str; 2], force: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let paths = names.map(|name| dir.join(name));
        if let (false, Some(path)) = (force, paths.iter().find(|path| path.exists())) {
            return Err(Exists(path.clone()).into());
        }
        Ok(Self { paths, force })
    }

    fn unpublished(&self) -> [PathBuf; 2] {
        self.paths.clone().map(|path| {
            let mut name = path.into_os_string();
            name.push(".new");
            name.into()
        })
    }

    fn write(&self, cert: &str, key: &str) -> anyhow::Result<()> {
        for (path, content, mode) in self
            .unpublished()
            .iter()
            .zip([(cert, 0o644), (key, 0o600)])
            .map(|(path, (content, mode))| (path, content, mode))
        {
            let write = || {
                // What an earlier attempt has left may have another mode.
                match fs::remove_file(path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                let mut options = OpenOptions::new();
                let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
                file.write_all(content.as_bytes())?;
                file.sync_all()
            };
            write().with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Puts both in place, the key first: until the certificate follows, a running node keeps what it has.
    fn publish(&self) -> anyhow::Result<()> {
        for (from, to) in self.unpublished().iter().zip(&self.paths).rev() {
            let place = || {
                if self.force {
                    return fs::rename(from, to);
                }
                // Unlike a rename, a link never replaces anything.
                fs::hard_link(from, to)?;
                fs::remove_file(from)
            };
            place().with_context(|| format!("cannot make {}", to.display()))?;
        }
        if let Some(dir) = self.paths[0].parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }

    fn discard(&self) {
        for path in self.unpublished() {
            // It is of no use, and harms nobody.
            let _ = fs::remove_file(path);
        }
    }
}
